"""Whether a released version takes the alias from the champion of its name: both answer the same validation rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpo.config.objective import gate_of
from hpo.errors import HpoError
from hpo.release.versions import Version, version_of
from hpo.results.released import Decision, Release, Rivalry
from hpo.results.rivals import answer, answer_to_itself, decide, in_words, rivalry
from hpo.search.scoreboard import row_parts
from hpo.trials.calls import run_alone
from hpo.trials.context import SweepContext
from hpo.trials.slots import cores
from hpo.trials.trial_files import read_rows
from trainers.metrics.table import ROW_RESULTS, Rows
from trainers.protocol.requests import Measure
from trainers.runtime.card import GENERATIVE, REWRITING, Card, ReleaseError


@dataclass(frozen=True)
class Ruling:
    """What becomes of a challenger, and why."""

    decision: Decision
    why: str
    rivalry: Rivalry | None = None


def rule_on(sweep: SweepContext, release: Release, incumbent: Version | None) -> Ruling:
    """Whether a released version becomes champion, waits for a person, or has shown too little.

    `incumbent` is the champion of that name now. Both released artifacts answer the same validation rows: those that
    certify where other rows chose the sweep's champion, else all.
    """
    wanted = sweep.config.promote
    assert wanted is not None  # noqa: S101  # the caller promotes
    if incumbent is None:
        return Ruling(decide(wanted.approve, "yes"), "")
    if incumbent.run_id == release.run_id:
        return Ruling(decide(wanted.approve, "yes"), f"{incumbent}: the same training, released under another gate")
    asks = answer_to_itself if incumbent.sweep == sweep.config.name else answer
    found: Rivalry | None = None
    try:
        found = _compare(sweep, release, incumbent)
        why = (
            f"{incumbent}: {found.metric} {found.champion:.4f} on these validation rows, trial {release.trial} has "
            f"{found.challenger:.4f}: {in_words(found)}"
        )
    except (HpoError, ReleaseError) as error:
        why = f"{incumbent}: version {release.version} cannot be compared with it ({error})"
    finally:
        shutil.rmtree(sweep.paths.release, ignore_errors=True)
    return Ruling(decide(wanted.approve, asks(wanted.requirement, found, wanted.max_drop)), why, found)


def _compare(sweep: SweepContext, release: Release, incumbent: Version) -> Rivalry:
    """Both artifacts on the same rows. Raises `HpoError` or `ReleaseError` where they do not compare."""
    gate = gate_of(sweep.config.task, sweep.config.objective)
    old, new = incumbent.folder(), _folder_of(sweep, release)
    card = _check_comparable(sweep, old)
    sweep.view.say(f"measuring {incumbent} and version {release.version} on the same validation rows")
    rows = [_rows(sweep, folder, role) for folder, role in ((old, "champion"), (new, "challenger"))]
    if len(rows[0]) != len(rows[1]):
        raise HpoError(f"they answered {len(rows[0])} and {len(rows[1])} rows")
    certifying = row_parts(sweep).certifying
    kind = ROW_RESULTS[sweep.config.task]

    def metric(labels: Sequence[str]) -> Callable[[Rows], float]:
        return lambda rows: kind.metrics(rows, labels)[gate.metric]

    metrics = metric(card.labels), metric(Card.read(new).labels)
    return rivalry(rows[0][certifying], metrics[0], rows[1][certifying], metrics[1], gate)


def _folder_of(sweep: SweepContext, release: Release) -> Path:
    found = version_of(sweep.home, release.name, release.version)
    if found is None:
        raise HpoError(f"version {release.version} of {release.name!r} was deleted meanwhile")
    return found.folder()


def _check_comparable(sweep: SweepContext, folder: Path) -> Card:
    """The card of another release. Raises `HpoError` where its numbers on these rows would say nothing."""
    card = Card.read(folder)
    if card.adapters and not card.champion:
        raise HpoError("it is a bundle of several trainings")
    if card.task != sweep.config.task:
        raise HpoError(f"it is a model for {card.task}")
    if card.task in (*GENERATIVE, REWRITING) and _base_of(folder) != sweep.inspection.model_fingerprint:
        raise HpoError("it has another base model, so its tokens differ")
    return card


def _rows(sweep: SweepContext, folder: Path, role: str) -> Rows:
    """Per-row results of a release folder on all validation rows; labels are matched by name."""
    rows = str(Path(sweep.inspection.tokens_dir) / "validation.jsonl")
    rows_file = sweep.paths.release / f"{role}.npy"
    request = Measure(folder.name, str(folder.parent), rows, cores(), sweep.inspection.labels, str(rows_file))
    run_alone(sweep.executor, request)
    return read_rows(rows_file, sweep.executor.fetch)


def _base_of(folder: Path) -> str | None:
    """The hash of a release's base model; None where its manifest is missing or damaged."""
    try:
        base: str = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["sha256"]["base"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return base
