"""What the finalists' race showed: means, intervals and the champion's lead, on the rows that certify."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hpo.results.gaps import gap
from hpo.results.outcome import Against, Contestant, FinalistsOutcome, RaceReport, Repeat
from hpo.results.race import Entrant, Race, Standing, Training, between_seeds
from hpo.results.records import TrialRecord
from hpo.results.statistics import Spread, interval, resample
from hpo.search.contest import Contest
from hpo.search.scoreboard import Results, Scoreboard
from hpo.trials.context import SweepContext
from trainers.metrics.table import Rows
from trainers.protocol.events import TrialResult


class FinalScores:
    """A race that is over, as an outcome.

    A contestant of which a repeat failed is out: a point that trains only sometimes is no champion. How much seeds
    vary is estimated from the trainings of all the others together: two or three of one contestant tell too little.
    """

    def __init__(self, sweep: SweepContext, contest: Contest, board: Scoreboard, results: Results) -> None:
        self._sweep = sweep
        self._contest = contest
        self._board = board
        self._results = results
        self._race: Race = contest.race(board, results)
        self._standing: Standing = self._race.standing()
        self._healthy = [e for e in self._race.entrants if not e.is_out]
        self._is_recipe = contest.claim == "recipe"
        self._between: Spread | None = None
        if self._is_recipe:
            self._between = between_seeds(self._healthy, self._standing.seeds, choosing=False)

    def outcome(self) -> FinalistsOutcome:
        """Everything but the sealed test."""
        contest, champion = self._contest, self._standing.champion
        entries = [self._contestant(position, record) for position, record in enumerate(contest.contestants)]
        others = [e for e in self._by_mean() if e.trial != champion]
        baseline = next((e for e in others if e.is_baseline), None)
        return FinalistsOutcome(
            contest.fingerprint, entries, champion, self._against(baseline), self._against(next(iter(others), None)),
            race=self.report(),
        )  # fmt: skip

    def report(self) -> RaceReport:
        """What is claimed, and what it took."""
        parts = self._board.parts
        cap = len(self._contest.repeats) if self._is_recipe else len(self._results)
        return RaceReport(
            self._contest.claim, len(self._results), cap, list(self._standing.dropped), len(parts.choosing),
            len(parts.certifying), parts.is_split, self._comparisons(),
        )  # fmt: skip

    def _comparisons(self) -> int:
        """An adapter that other rows have chosen is compared once; seeds are the same on all rows."""
        return self._race.comparisons if self._is_recipe or not self._board.parts.is_split else 1

    def _contestant(self, position: int, record: TrialRecord) -> Contestant:
        repeats = self._repeats(record)
        entry = Contestant(record.number, record.params, repeats, record.number == self._sweep.study.state.baseline)
        if any(repeat.value is None for repeat in repeats):
            return entry
        parts, between = self._board.parts, self._between or Spread(0.0, 0)
        rows = [all_rows[parts.certifying] for all_rows in self._rows(record)]
        units, seed = parts.units_of(parts.certifying), self._sweep.config.seed
        draws = resample(rows, self._board.metric, position, seed, between, units)
        return replace(entry, interval=interval(rows, self._board.metric, draws, self._sweep.config.objective.bounds))

    def _repeats(self, record: TrialRecord) -> list[Repeat]:
        """Those that counted; of a contestant that is out, all."""
        config, result = self._sweep.config, record.result
        mine = self._results_of(record.number)
        if not mine and result is not None:
            return [Repeat(config.seed, result.value, result.metrics, record.run_id or "", None, result.seconds, True)]
        choosing = self._choosing(record.number)
        return [
            Repeat(config.seed_of(n), r.value, r.metrics, run_id, r.cause, r.seconds, choosing=choosing.get(n))
            for n, (r, run_id) in mine.items()
        ]

    def _choosing(self, trial: int) -> dict[int, float]:
        """What its repeats are chosen by, where that is not what certifies."""
        trained = next(e.trained for e in self._race.entrants if e.trial == trial) if self._board.parts.is_split else {}
        return {repeat: found.choosing.value for repeat, found in trained.items() if found}

    def _rows(self, record: TrialRecord) -> list[Rows]:
        mine = self._results_of(record.number)
        if not mine and (rows := self._board.search_rows(record)) is not None:
            return [rows]
        return [self._board.rows(record.number, repeat, r) for repeat, (r, _) in mine.items()]

    def _results_of(self, trial: int) -> dict[int, tuple[TrialResult, str]]:
        counted = self._standing.seeds.get(trial)
        return {
            repeat: found
            for (number, repeat), found in sorted(self._results.items())
            if number == trial and (counted is None or repeat < counted)
        }

    def _by_mean(self) -> list[Entrant]:
        """Best mean first, on the rows that choose."""
        sort_key = self._sweep.config.objective.sort_key
        means = {e.trial: float(np.mean([t.choosing.value for t in self._counted(e)])) for e in self._healthy}
        return sorted(self._healthy, key=lambda e: sort_key(means[e.trial]))

    def _counted(self, entrant: Entrant) -> list[Training]:
        return entrant.counted(self._standing.seeds[entrant.trial])

    def _against(self, other: Entrant | None) -> Against | None:
        champion = next((e for e in self._healthy if e.trial == self._standing.champion), None)
        if champion is None or other is None:
            return None
        first, second = ([t.certifying for t in self._counted(entrant)] for entrant in (champion, other))
        return gap(first, second, self._between).comparison(self._comparisons()).against(other.trial)
