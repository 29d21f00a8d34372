"""The validation rows of a sweep with what its champion and its baseline made of each, as far as they are kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from hpo.errors import HpoError
from hpo.executors.base import here
from hpo.paths import Home
from hpo.results.champion import Champion
from hpo.results.needed import trained_in
from hpo.results.records import StudySnapshot
from hpo.results.row_findings import JudgedRows
from hpo.trials.trial_files import read_result, reader_of, rows_of_result
from trainers.metrics.table import ROW_RESULTS, Rows
from trainers.protocol.events import PreparedData
from trainers.protocol.files import TrialPaths

MOST_ROWS = 20_000
"""That are looked at: enough for every slice, and read in a second."""
_AGAIN = "remove its folder: hpo prepares the data again"


def judged_rows(home: Home, view: StudySnapshot, champion: Champion) -> JudgedRows | None:
    """None where the rows, or the champion's results of them, are not on this disk (any more).

    Raises `HpoError` where a file of them cannot be read.
    """
    data = view.state.data
    if data is None or not data.tokens_dir:
        return None
    # By its name: the home may have been moved.
    file = home.tokens / Path(data.tokens_dir).name / "validation.jsonl"
    task, labels = str(view.config["task"]), data.labels
    mine = _kept(training_paths(home, view, champion.number, champion.repeat), task, labels)
    if mine is None or not file.exists():
        return None
    inputs = _first_rows(file)
    if len(mine) < len(inputs):
        return None
    if len(inputs) < min(len(mine), MOST_ROWS):
        raise HpoError(f"{file}: {len(inputs):,} rows; expected {len(mine):,}, as many as trials answered; {_AGAIN}")
    baseline = _baseline(home, view, champion, task, labels)
    if baseline is not None and len(baseline) != len(mine):
        baseline = None
    cut = len(inputs)
    other = None if baseline is None else baseline[:cut]
    return JudgedRows(task, labels, inputs, mine[:cut], other, len(mine), reader_of(_here(home, data)))


def _here(home: Home, data: PreparedData) -> PreparedData:
    """The same with the model's folder where it is today: below the cache, which moves with its home."""
    was, model = Path(data.tokens_dir).parent.parent, Path(data.model_dir)  # `home.cache` of then
    if not model.is_absolute() or not model.is_relative_to(was):
        return data
    return dataclasses.replace(data, model_dir=str(home.cache / model.relative_to(was)))


def training_paths(home: Home, view: StudySnapshot, trial: int, repeat: int | None) -> TrialPaths:
    """The files of a training of a stored sweep: of a finalist's repeat, or of a trial, wherever it was trained."""
    if repeat is not None:
        return home.sweep(view.name).repeat(trial, repeat)
    record = next(record for record in view.records if record.number == trial)
    origin, number = trained_in(view.name, record, view.records)
    return home.sweep(origin).trial(number)


def _baseline(
    home: Home, view: StudySnapshot, champion: Champion, task: str, labels: Sequence[str]
) -> Rows | None:  # fmt: skip
    """Of the baseline's repeat with the champion's seed where there is one, else of the search's own training."""
    number = view.state.baseline
    if number == champion.number or number not in {record.number for record in view.records}:
        return None
    if champion.repeat is not None:
        same_seed = _kept(home.sweep(view.name).repeat(number, champion.repeat), task, labels)
        if same_seed is not None:
            return same_seed
    return _kept(training_paths(home, view, number, None), task, labels)


def _kept(paths: TrialPaths, task: str, labels: Sequence[str]) -> Rows | None:
    """None for a training that has not ended, has no value, or whose rows were freed."""
    try:
        result = read_result(paths)
        return _fitting(rows_of_result(paths, result, here), task, labels) if result.state == "complete" else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:  # the last two of NumPy
        raise HpoError(f"the per-row results in {paths.dir} cannot be read ({str(error)[:100]}); "
                       "bring back a copy of them, or remove them") from error  # fmt: skip


def _fitting(rows: Rows, task: str, labels: Sequence[str]) -> Rows:
    """The rows, where they can be of this task. Raises `ValueError`."""
    form = ROW_RESULTS[task]
    if rows.ndim != 2 or rows.dtype.kind != "f" or rows.shape[1] < form.width(labels):
        raise ValueError(f"{rows.dtype} {list(rows.shape)}; expected floats [rows, {form.width(labels)} columns]")
    numbers = rows[:, [form.columns.index(column) for column in form.label_columns]]
    if not ((numbers >= 0) & (numbers < len(labels))).all():
        raise ValueError(f"a label's number is not 0 to {len(labels) - 1}")
    return rows


def _first_rows(file: Path) -> list[dict[str, Any]]:
    try:
        with file.open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in islice(lines, MOST_ROWS)]
    except (OSError, ValueError) as error:
        raise HpoError(f"{file} cannot be read ({str(error)[:100]}); {_AGAIN}") from error
    if other := next((number for number, row in enumerate(rows, 1) if not isinstance(row, dict)), None):
        raise HpoError(f"{file}:{other}: is not a row; {_AGAIN}")
    return rows
