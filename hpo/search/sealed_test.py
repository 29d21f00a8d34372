"""The sealed test split, read once, after everything else is decided: the champion and the baseline on it."""

from __future__ import annotations

from pathlib import Path

from hpo.results.champion import Champion, best_repeat
from hpo.results.outcome import Contestant, FinalistsOutcome, SealedTest, TestScore
from hpo.results.statistics import Draws, compare, interval, resample
from hpo.search.scoreboard import Scoreboard
from hpo.trials.calls import run_alone
from hpo.trials.context import SweepContext
from hpo.trials.trial_files import read_rows
from trainers.metrics.table import Rows
from trainers.protocol.events import Scored
from trainers.protocol.requests import Score


def read_test(sweep: SweepContext, board: Scoreboard, outcome: FinalistsOutcome) -> SealedTest | None:
    """The champion and the baseline on the test split; None without a champion."""
    if outcome.champion is None:
        return None
    with sweep.view.doing("reading the sealed test split, once, for the champion and the baseline"):
        champion, champion_draws = _test_score(sweep, board, outcome.of(outcome.champion))
        other = outcome.baseline()
        if other is None or other.trial == outcome.champion:
            return SealedTest(champion)
        baseline, baseline_draws = _test_score(sweep, board, other)
    compared = compare(champion.interval, baseline.interval, champion_draws, baseline_draws)
    return SealedTest(champion, baseline, compared.against(baseline.trial))


def _test_score(sweep: SweepContext, board: Scoreboard, contestant: Contestant) -> tuple[TestScore, Draws]:
    """A contestant's best training on the test rows, with its draws."""
    chosen = best_repeat(contestant, sweep.config.objective)
    metrics, rows = _score_on_test(sweep, chosen)
    draws = resample([rows], board.metric, 0, sweep.config.seed)
    return TestScore(contestant.trial, chosen.repeat, metrics, interval([rows], board.metric, draws)), draws


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
