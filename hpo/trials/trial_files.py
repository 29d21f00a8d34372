"""A trial's files as the sweep reads and writes them; what a trainer wrote is read where `fetch` puts it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from hpo.errors import HpoError
from hpo.executors.base import Fetch, here
from hpo.results.confusion_svg import confusion_svg
from hpo.results.error_analysis import confusion, example, worst_rows
from trainers.metrics.table import ROW_RESULTS, Rows
from trainers.protocol.codec import from_file, to_file
from trainers.protocol.events import PreparedData, TrialResult
from trainers.protocol.files import TrialPaths, write_atomically
from trainers.protocol.trial_spec import TrialSpec

LOG_TAIL_LINES = 20
T = TypeVar("T")
Row = dict[str, Any]
"""A row of the data as the tokens' folder has it."""


def finished_on_disk(spec: TrialSpec, paths: TrialPaths) -> TrialResult | None:
    """The result an earlier process left, if it is of the same spec."""
    if not paths.result.exists() or not is_of(spec, paths):
        return None
    return read_result(paths)


def read_result(paths: TrialPaths) -> TrialResult:
    """The result of a trial that is over. Raises as `read_record` does."""
    return read_record(TrialResult, paths.result)


def read_spec(paths: TrialPaths) -> TrialSpec:
    """The spec of a trial that has begun, as its last attempt had it. Raises as `read_record` does."""
    return read_record(TrialSpec, paths.spec)


def is_of(spec: TrialSpec, paths: TrialPaths) -> bool:
    """Whether a folder holds this very trial: whatever decides its result is equal."""
    if not paths.spec.exists():
        return False
    return read_spec(paths).fingerprint() == spec.fingerprint()


def prepare_folder(spec: TrialSpec, paths: TrialPaths) -> None:
    """Keep what an interrupted attempt at this trial left (its checkpoints); clear away anything else."""
    if not is_of(spec, paths):
        shutil.rmtree(paths.dir, ignore_errors=True)
    paths.dir.mkdir(parents=True, exist_ok=True)


def write_result(result: TrialResult, paths: TrialPaths) -> None:
    """`result.json`, last of a trial's files: where it stands, the trial is over."""
    if not paths.result.exists():
        paths.dir.mkdir(parents=True, exist_ok=True)
        write_atomically(paths.result, to_file(result))


def write_spec(spec: TrialSpec, paths: TrialPaths) -> None:
    """`spec.json`, before a trial begins: by it a later session knows whose checkpoints and result these are."""
    paths.dir.mkdir(parents=True, exist_ok=True)
    write_atomically(paths.spec, to_file(spec))


def read_record(cls: type[T], path: Path) -> T:
    """A record of a trial.

    Raises `FileNotFoundError` where there is none, and `HpoError`, which names the file and so the sweep, where it
    cannot be read or does not fit.
    """
    try:
        return from_file(cls, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise HpoError(
            f"{path} cannot be read ({str(error)[:120]}): another version of hpo, or an edit by hand, changed it; "
            "bring back a copy of it, or remove the trial's folder to train it again"
        ) from error


def rows_of(paths: TrialPaths, index: int, fetch: Fetch) -> Rows:
    """Per-row results of an evaluation, [rows, columns]. Raises `FileNotFoundError` where none were kept."""
    return read_rows(paths.rows(index), fetch)


def read_rows(path: Path, fetch: Fetch) -> Rows:
    """Per-row results that a request wrote to `path`, [rows, columns]; else raises `FileNotFoundError`."""
    import numpy as np  # late: most commands read no rows

    rows: Rows = np.load(fetch(path), allow_pickle=False)
    return rows


def rows_of_result(paths: TrialPaths, result: TrialResult, fetch: Fetch) -> Rows:
    """Per-row results that a complete trial's metrics are of: all validation rows, [rows, columns].

    Raises `FileNotFoundError` where none were kept.
    """
    try:
        return read_rows(paths.all_rows, fetch)
    except FileNotFoundError:  # its evaluations used all rows
        return rows_of(paths, result.best_index or 0, fetch)


def losses_of(paths: TrialPaths, index: int, task: str, fetch: Fetch) -> list[float] | None:
    """Per-example losses of an evaluation; None where none were kept."""
    try:
        rows = rows_of(paths, index, fetch)
    except FileNotFoundError:
        return None
    losses: list[float] = ROW_RESULTS[task].losses(rows).tolist()
    return losses


def write_examples(
    result: TrialResult, paths: TrialPaths, task: str, inspection: PreparedData, folder: Path, fetch: Fetch
) -> None:
    """What a complete trial gets wrong: `worst_examples.jsonl` and, for classes, `confusion_matrix.json` and `.svg`.

    They follow from the per-row results of its best evaluation. The fake trainer has no tokens, so nothing to show.
    """
    if result.state != "complete" or not inspection.tokens_dir:
        return
    rows = rows_of_result(paths, result, fetch)
    worst = worst_rows(task, rows)
    inputs = _validation_rows(inspection, worst, fetch)
    lines = [json.dumps(example(task, inputs[n], rows[n], inspection.labels), ensure_ascii=False) for n in worst]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "worst_examples.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if matrix := confusion(task, rows, inspection.labels):
        (folder / "confusion_matrix.json").write_text(json.dumps(asdict(matrix), ensure_ascii=False), encoding="utf-8")
        (folder / "confusion_matrix.svg").write_text(confusion_svg(matrix.labels, matrix.counts), encoding="utf-8")


def _validation_rows(inspection: PreparedData, numbers: Sequence[int], fetch: Fetch) -> dict[int, Row]:
    """Some rows as the tokens' folder has them; token ids as text, where the model's folder has a tokenizer's file."""
    wanted = set(numbers)
    with fetch(Path(inspection.tokens_dir, "validation.jsonl")).open(encoding="utf-8") as lines:
        rows = {n: json.loads(line) for n, line in enumerate(lines) if n in wanted}
    readable = reader_of(inspection, fetch)
    return {n: readable(row) for n, row in rows.items()}


def reader_of(inspection: PreparedData, fetch: Fetch = here) -> Callable[[Row], Row]:
    """What makes a row of the tokens' folder one that a person reads: token ids become text, where the model's folder
    has a tokenizer's file."""
    tokenizer_file = fetch(Path(inspection.model_dir, "tokenizer.json"))

    @cache
    def tokenizer() -> Any:
        from tokenizers import Tokenizer  # late: only tasks that predict tokens need it

        return Tokenizer.from_file(str(tokenizer_file))

    def readable(row: Row) -> Row:
        if "input_ids" not in row or not tokenizer_file.exists():
            return row
        return {"text": tokenizer().decode(row["input_ids"], skip_special_tokens=False)}

    return readable


def log_tail(paths: TrialPaths, fetch: Fetch) -> str:
    """The last lines of what a trial's process printed."""
    log = fetch(paths.log)
    if not log.exists():
        return "(no log)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
