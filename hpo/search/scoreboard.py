"""What finalists scored, on the rows that choose and on those that certify; each training's rows are read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hpo.results.gaps import Scores, scores
from hpo.results.race import Entrant, Race, Training
from hpo.results.records import TrialRecord
from hpo.results.row_parts import Numbers, RowParts, is_split, split_rows, whole
from hpo.trials.context import SweepContext
from hpo.trials.row_units import conversations_of, numbered
from hpo.trials.trial_files import rows_of_result
from trainers.metrics.table import ROW_RESULTS, Rows, row_results
from trainers.protocol.catalog import GENERATED
from trainers.protocol.events import TrialResult
from trainers.protocol.files import TrialPaths

Results = dict[tuple[int, int], tuple[TrialResult, str]]
"""(trial, seed's index) -> a repeat's result and its MLflow run."""


class Scoreboard:
    """The objective of every training that the finalists' race looks at."""

    def __init__(self, sweep: SweepContext) -> None:
        self._sweep = sweep
        self._kept: dict[TrialPaths, Training] = {}
        self.parts = row_parts(sweep)
        if sweep.config.objective.metric in GENERATED:
            found = (self.search_rows(record) for record in sweep.study.records() if record.state == "complete")
            rows = next((rows for rows in found if rows is not None), None)
            self.parts = self.parts if rows is None else self.parts.among(self.counted(rows))

    def metric(self, rows: Rows) -> float:
        """The objective's metric of per-row results."""
        config = self._sweep.config
        found = row_results(config.task, config.metrics).metrics(rows, self._sweep.inspection.labels)
        return found[config.objective.metric]

    def counted(self, rows: Rows) -> Numbers:
        """Rows that the objective is of: of generated text those with an answer, which are the same in every trial."""
        if self._sweep.config.objective.metric not in GENERATED:
            return np.arange(len(rows))
        first = ROW_RESULTS[self._sweep.config.task].width(self._sweep.inspection.labels)
        return np.flatnonzero(~np.isnan(rows[:, first]))

    def rows(self, trial: int, repeat: int, result: TrialResult) -> Rows:
        """Per-row results of a repeat's best adapter on all validation rows."""
        return self._rows(self._sweep.paths.repeat(trial, repeat), result)

    def search_rows(self, record: TrialRecord) -> Rows | None:
        """The same of the search's own training; None where its files are gone."""
        if record.result is None:
            return None
        try:
            return self._rows(self._sweep.trial_paths(record.number), record.result)
        except FileNotFoundError:
            return None

    def chosen_by(self, record: TrialRecord) -> float:
        """What contestants are ranked by, lowest first: the search's training, on the rows that choose."""
        if (rows := self.search_rows(record)) is not None:
            value = self.metric(rows[self.parts.choosing])
        else:
            value = record.result.value if record.result and record.result.value is not None else float("nan")
        return self._sweep.config.objective.sort_key(value)

    def recipes(self, contestants: Sequence[TrialRecord], results: Results, seeds: int) -> Race:
        """The race over seeds, as far as `results` go."""
        entrants = [
            Entrant(c.number, self._is_baseline(c), self._of_repeats(c.number, results), self._of_search(c))
            for c in contestants
        ]
        return self._race(entrants, seeds)

    def adapters(self, contestants: Sequence[TrialRecord], results: Results) -> Race:
        """The same where the search's own trainings are what is compared: only whose files are gone trains again."""
        entrants = []
        for contestant in contestants:
            own, again = self._of_search(contestant), self._of_repeats(contestant.number, results)
            entrants.append(Entrant(contestant.number, self._is_baseline(contestant), {0: own} if own else again))
        return self._race(entrants, 1)

    def _race(self, entrants: Sequence[Entrant], cap: int) -> Race:
        return Race(entrants, cap, 1 if self._sweep.config.objective.direction == "maximize" else -1)

    def _is_baseline(self, record: TrialRecord) -> bool:
        return record.number == self._sweep.study.state.baseline

    def _of_search(self, record: TrialRecord) -> Training | None:
        return self._training(self._sweep.trial_paths(record.number), lambda: self.search_rows(record))

    def _of_repeats(self, trial: int, results: Results) -> dict[int, Training | None]:
        return {
            repeat: None if result.value is None else self._of_repeat(trial, repeat, result)
            for (number, repeat), (result, _) in results.items()
            if number == trial
        }

    def _of_repeat(self, trial: int, repeat: int, result: TrialResult) -> Training | None:
        return self._training(self._sweep.paths.repeat(trial, repeat), lambda: self.rows(trial, repeat, result))

    def _training(self, paths: TrialPaths, read: Callable[[], Rows | None]) -> Training | None:
        if paths not in self._kept:
            if (rows := read()) is None:
                return None
            choosing = self._scores(rows, self.parts.choosing)
            certifying = self._scores(rows, self.parts.certifying) if self.parts.is_split else choosing
            self._kept[paths] = Training(choosing, certifying)
        return self._kept[paths]

    def _scores(self, rows: Rows, part: Numbers) -> Scores:
        return scores(rows[part], self.metric, self.parts.units_of(part))

    def _rows(self, paths: TrialPaths, result: TrialResult) -> Rows:
        return rows_of_result(paths, result, self._sweep.executor.fetch)


def row_parts(sweep: SweepContext) -> RowParts:
    """The sweep's validation rows by what they do. The fake trainer has no tokens: its rows are hashed by number."""
    prepared, count = sweep.inspection, sweep.inspection.rows["validation"]
    if (names := conversations_of(sweep.config.task, prepared, "validation", sweep.executor.fetch)) is not None:
        parts = split_rows(map(str.encode, names)) if is_split(sweep.config, count) else whole(count)
        return replace(parts, units=numbered(names))
    if not is_split(sweep.config, count):
        return whole(count)
    if not prepared.tokens_dir:
        return split_rows(f"{prepared.fingerprint} {number}".encode() for number in range(count))
    with sweep.executor.fetch(Path(prepared.tokens_dir, "validation.jsonl")).open("rb") as lines:
        return split_rows(lines)
