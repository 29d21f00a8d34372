"""The sealed test split, read once, after everything else is decided: the champion and the baseline on it."""

from __future__ import annotations

from pathlib import Path

from hpo.results.champion import Champion, best_repeat
from hpo.results.gaps import Scores, gap, scores
from hpo.results.outcome import Contestant, FinalistsOutcome, SealedTest, TestScore
from hpo.results.statistics import Units, interval, resample
from hpo.search.scoreboard import Scoreboard
from hpo.trials.calls import run_alone
from hpo.trials.context import SweepContext
from hpo.trials.row_units import units_of
from hpo.trials.trial_files import read_rows
from trainers.metrics.table import Rows
from trainers.protocol.events import Scored
from trainers.protocol.requests import Score


def read_test(sweep: SweepContext, board: Scoreboard, outcome: FinalistsOutcome) -> SealedTest | None:
    """The champion and the baseline on the test split; None without a champion."""
    if outcome.champion is None:
        return None
    with sweep.view.doing("reading the sealed test split, once, for the champion and the baseline"):
        units = units_of(sweep.config.task, sweep.inspection, "test", sweep.executor.fetch)
        champion, of_champion = _test_score(sweep, board, outcome.of(outcome.champion), units)
        other = outcome.baseline()
        if other is None or other.trial == outcome.champion:
            return SealedTest(champion)
        baseline, of_baseline = _test_score(sweep, board, other, units)
    compared = gap([of_champion], [of_baseline], None).comparison(1)
    return SealedTest(champion, baseline, compared.against(baseline.trial))


def _test_score(
    sweep: SweepContext, board: Scoreboard, contestant: Contestant, units: Units | None
) -> tuple[TestScore, Scores]:
    """A contestant's best training on the test rows."""
    chosen = best_repeat(contestant, sweep.config.objective)
    metrics, rows = _score_on_test(sweep, chosen)
    counted = board.counted(rows)
    rows, units = rows[counted], None if units is None else units[counted]
    draws = resample([rows], board.metric, 0, sweep.config.seed, units=units)
    found = TestScore(contestant.trial, chosen.repeat, metrics, interval([rows], board.metric, draws))
    return found, scores(rows, board.metric, units)


def _score_on_test(sweep: SweepContext, chosen: Champion) -> tuple[dict[str, float], Rows]:
    paths, seed = sweep.champion_paths(chosen), sweep.config.seed_of(chosen.repeat)
    spec = sweep.specs.spec(chosen.number, chosen.params, paths, threads=sweep.slots.threads, seed=seed)
    # The adapter may lie in the folder of a sweep that it was taken over from: nothing is written there.
    written_to = sweep.paths.trial(chosen.number) if chosen.repeat is None else paths
    rows_file = Path(written_to.dir, "test.npy")
    request = Score(
        spec.workload, sweep.inspection, sweep.slots.threads * sweep.slots.jobs, sweep.slots.devices(0), "test", spec,
        str(rows_file),
    )  # fmt: skip
    scored = run_alone(sweep.executor, request)
    assert isinstance(scored, Scored)  # noqa: S101  # the protocol's answer to Score
    return scored.metrics, read_rows(rows_file, sweep.executor.fetch)
