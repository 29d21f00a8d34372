"""A trial's files as the sweep reads and writes them."""

from __future__ import annotations

import json
import shutil

from trainers.codec import from_json, to_json
from trainers.files import TrialPaths, write_atomically
from trainers.metrics.table import ROW_RESULTS
from trainers.spec import TrialResult, TrialSpec

LOG_TAIL_LINES = 20


def finished_on_disk(spec: TrialSpec, paths: TrialPaths) -> TrialResult | None:
    """The result an earlier process left, if it is of the same spec."""
    if not paths.result.exists() or not is_of(spec, paths):
        return None
    return from_json(TrialResult, json.loads(paths.result.read_text()))


def is_of(spec: TrialSpec, paths: TrialPaths) -> bool:
    """Whether a folder holds this very trial: whatever decides its result is equal."""
    if not paths.spec.exists():
        return False
    return from_json(TrialSpec, json.loads(paths.spec.read_text())).fingerprint() == spec.fingerprint()


def prepare_folder(spec: TrialSpec, paths: TrialPaths) -> None:
    """Keep what an interrupted attempt at this trial left (its checkpoints); clear away anything else."""
    if not is_of(spec, paths):
        shutil.rmtree(paths.dir, ignore_errors=True)
    paths.dir.mkdir(parents=True, exist_ok=True)


def write_result(result: TrialResult, paths: TrialPaths) -> None:
    """`result.json`, last of a trial's files: where it stands, the trial is over."""
    if not paths.result.exists():
        paths.dir.mkdir(parents=True, exist_ok=True)
        write_atomically(paths.result, json.dumps(to_json(result), indent=2))


def losses_of(paths: TrialPaths, index: int, task: str) -> list[float] | None:
    """Per-example losses of an evaluation; None where none were kept."""
    import numpy as np  # late: only rules that compare examples need them

    path = paths.rows(index)
    if not path.exists():
        return None
    losses: list[float] = ROW_RESULTS[task].losses(np.load(path, allow_pickle=False)).tolist()
    return losses


def log_tail(paths: TrialPaths) -> str:
    if not paths.log.exists():
        return "(no log)"
    return "\n".join(paths.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
