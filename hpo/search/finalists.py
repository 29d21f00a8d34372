"""Who really won: the best trials and the baseline again with fresh seeds, compared; then the sealed test, once.

Repeats stay outside the study: they have their own record (`SweepState.finalists`), folders and MLflow runs.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from hpo.config.sweep_config import SweepConfig
from hpo.results.champion import best_repeat, ranked
from hpo.results.outcome import Against, Contestant, FinalistsOutcome, Interval, Repeat, SealedTest, TestScore
from hpo.results.records import TrialRecord
from hpo.results.statistics import Draws, Spread, compare, interval, resample, spread
from hpo.trials.calls import run_alone
from hpo.trials.context import SweepContext
from hpo.trials.job import Job, TrialController
from hpo.trials.scheduler import TrialScheduler
from hpo.trials.trial_files import finished_on_disk, prepare_folder, read_rows, rows_of, write_examples, write_result
from trainers.metrics.table import Rows, row_results
from trainers.protocol.codec import fingerprint
from trainers.protocol.events import Evaluation, Scored, Step, TrialResult
from trainers.protocol.requests import Score, Verdict
from trainers.protocol.trial_spec import TrialSpec

FIRST_NUMBER = 1_000_000
"""Repeats are numbered from here, where no trial's number is."""

Results = dict[tuple[int, int], tuple[TrialResult, str]]
"""(trial, repeat) -> its result and its MLflow run."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """One training of a contestant with a seed of its own, to come."""

    trial: int
    repeat: int
    spec: TrialSpec


def run_finalists(sweep: SweepContext) -> None:
    """Repeat, compare, choose the champion, read the test split; unless that has been done for these contestants."""
    wanted = sweep.config.finalists
    if wanted is None:
        sweep.study.update_state(finalists=None)
        return
    contestants = contestants_of(sweep, wanted.top)
    repeats = repeats_of(sweep, contestants, wanted.seeds)
    wanted_fingerprint = fingerprint([[r.trial, r.spec.fingerprint()] for r in repeats])
    before = sweep.study.state.finalists
    if before is not None and before.fingerprint == wanted_fingerprint:
        return
    sweep.view.say(
        f"finalists: trials {', '.join(str(c.number) for c in contestants)}; each again with {wanted.seeds} fresh seeds"
    )
    controller = FinalistController(sweep, repeats)
    TrialScheduler(sweep).run(controller)
    outcome = compare_finalists(sweep, contestants, controller.results, wanted_fingerprint)
    sweep.study.update_state(finalists=dataclasses.replace(outcome, test=read_test(sweep, outcome)))


def repeats_planned(config: SweepConfig) -> int:
    """Trainings that the finalists will take, the baseline's included."""
    return (config.finalists.top + 1) * config.finalists.seeds if config.finalists else 0


def contestants_of(sweep: SweepContext, top: int) -> list[TrialRecord]:
    """The best trials, best first, and the baseline, which has to be beaten."""
    best = ranked(sweep.study.records(), sweep.config.objective, sweep.config.constraints)
    baseline = sweep.study.state.baseline
    chosen = [r for r in best if r.number != baseline][:top]
    return chosen + [r for r in sweep.study.records() if r.number == baseline and r.state == "complete"]


def repeats_of(sweep: SweepContext, contestants: Sequence[TrialRecord], seeds: int) -> list[Planned]:
    """Every contestant with every seed; none of them the search's own, on which the contestants were chosen."""
    repeats: list[Planned] = []
    for contestant in contestants:
        for index in range(seeds):
            paths = sweep.paths.repeat(contestant.number, index)
            spec = sweep.specs.spec(
                FIRST_NUMBER + len(repeats), contestant.params, paths, threads=sweep.slots.threads,
                seed=sweep.config.seed + 1 + index,
            )  # fmt: skip
            repeats.append(Planned(contestant.number, index, spec))
    return repeats


class FinalistController(TrialController):
    """All repeats of all contestants: a `hpo.trials.scheduler.TrialController`."""

    def __init__(self, sweep: SweepContext, repeats: Sequence[Planned]) -> None:
        self._sweep = sweep
        self._by_number = {repeat.spec.number: repeat for repeat in repeats}
        self._waiting = deque(repeats)
        self.results: Results = {}
        self._run_ids: dict[int, str] = {}

    def next_job(self, slot: int) -> Job | None:
        while self._waiting:
            repeat = self._waiting.popleft()
            spec = dataclasses.replace(repeat.spec, devices=self._sweep.slots.devices(slot))
            paths = self._sweep.paths.repeat(repeat.trial, repeat.repeat)
            run_id = self._sweep.tracker.start_repeat(spec, repeat.trial, repeat.repeat)
            self._run_ids[spec.number] = run_id
            job = Job(spec, paths, slot)
            if result := finished_on_disk(spec, paths):
                self._sweep.tracker.finish_trial(spec.number, result, paths)
                self.results[repeat.trial, repeat.repeat] = (result, run_id)
                continue
            prepare_folder(spec, paths)
            self._sweep.meter.begin()
            return job
        return None

    def is_spent(self) -> bool:
        """Room for the repeats was kept when the search ended: they are run, whatever the clock says now."""
        return False

    def spared(self, jobs: list[Job]) -> Job | None:
        return None

    def resumed(self, job: Job) -> None: ...

    def stepped(self, job: Job, step: Step) -> None:
        self._sweep.tracker.step(job.number, step)

    def evaluated(self, job: Job, evaluation: Evaluation) -> None:
        self._sweep.tracker.evaluation(job.number, evaluation)

    def verdict(self, job: Job) -> Verdict:
        return "go"

    def retrying(self, job: Job) -> None:
        last = job.attempts[-1]
        repeat = self._by_number[job.number]
        self._sweep.view.say(f"trial {repeat.trial}, seed {repeat.repeat}: {last.cause} ({last.message}); trying again")

    def paused(self, job: Job) -> None:
        self._sweep.tracker.pause_trial(job.number)

    def finished(self, job: Job, result: TrialResult) -> None:
        repeat = self._by_number[job.number]
        write_result(result, job.paths)
        write_examples(
            result, job.paths, self._sweep.config.task, self._sweep.inspection, job.paths.examples,
            self._sweep.executor.fetch,
        )  # fmt: skip
        if job.spec.devices != ("cpu",):
            self._sweep.meter.gpu_seconds += result.seconds
        self._sweep.tracker.finish_trial(job.number, result, job.paths)
        self.results[repeat.trial, repeat.repeat] = (result, self._run_ids[job.number])
        metric = self._sweep.config.objective.metric
        value = f"{metric} {result.value:.4f}" if result.value is not None else f"{result.cause}: {result.message}"
        self._sweep.view.say(f"trial {repeat.trial} with seed {repeat.repeat}: {value}")


# --- comparing -----------------------------------------------------------------------------------------


def compare_finalists(
    sweep: SweepContext, contestants: Sequence[TrialRecord], results: Results, outcome_fingerprint: str
) -> FinalistsOutcome:
    """Mean and interval of each contestant, the champion, and its tests against baseline and runner-up.

    A contestant of which a repeat failed is out: a point that trains only sometimes is no champion. How much seeds
    vary is estimated from the repeats of all the others together: two or three of one contestant tell too little.
    """
    rows = {record.number: kept for record in contestants if (kept := _rows_of(sweep, record.number, results))}
    between_seeds = spread(list(rows.values()), _metric_of(sweep))
    entries, draws = [], {}
    for position, record in enumerate(contestants):
        entry = _contestant(sweep, record, results)
        if record.number in rows:
            found, draws[record.number] = _summary(sweep, rows[record.number], position, between_seeds)
            entry = dataclasses.replace(entry, interval=found)
        entries.append(entry)
    sort_key = sweep.config.objective.sort_key
    standing = sorted((e for e in entries if e.interval), key=lambda e: sort_key(e.interval.mean) if e.interval else 0)
    if not standing:
        return FinalistsOutcome(outcome_fingerprint, entries, champion=None)
    champion = standing[0]
    baseline = next((e for e in standing if e.is_baseline and e is not champion), None)
    return FinalistsOutcome(
        outcome_fingerprint, entries, champion.trial, _against(champion, baseline, draws),
        _against(champion, next(iter(standing[1:]), None), draws),
    )  # fmt: skip


def _contestant(sweep: SweepContext, record: TrialRecord, results: Results) -> Contestant:
    """One contestant with its repeats, without an interval."""
    repeats = [
        Repeat(sweep.config.seed + 1 + repeat, r.value, r.metrics, run_id, r.cause, r.seconds)
        for (trial, repeat), (r, run_id) in sorted(results.items())
        if trial == record.number
    ]
    return Contestant(record.number, record.params, repeats, record.number == sweep.study.state.baseline)


def _rows_of(sweep: SweepContext, trial: int, results: Results) -> list[Rows]:
    """Per-row validation results at the best evaluation of each repeat; none where a repeat failed."""
    mine = [(repeat, result) for (number, repeat), (result, _) in sorted(results.items()) if number == trial]
    if any(result.value is None for _, result in mine):
        return []
    fetch = sweep.executor.fetch
    return [rows_of(sweep.paths.repeat(trial, repeat), r.best_index or 0, fetch) for repeat, r in mine]


def _metric_of(sweep: SweepContext) -> Callable[[Rows], float]:
    """The objective's metric of per-row results."""
    metrics, labels = row_results(sweep.config.task, sweep.config.metrics).metrics, sweep.inspection.labels
    name = sweep.config.objective.metric
    return lambda drawn: metrics(drawn, labels)[name]


def _summary(
    sweep: SweepContext, rows: list[Rows], contestant: int, between_seeds: Spread | None = None
) -> tuple[Interval, Draws]:
    metric_of = _metric_of(sweep)
    draws = resample(rows, metric_of, contestant, sweep.config.seed, between_seeds)
    return interval(rows, metric_of, draws), draws


def _against(champion: Contestant, other: Contestant | None, draws: dict[int, Draws]) -> Against | None:
    if other is None or champion.interval is None or other.interval is None:
        return None
    return compare(champion.interval, other.interval, draws[champion.trial], draws[other.trial]).against(other.trial)


# --- the sealed test -----------------------------------------------------------------------------------


def read_test(sweep: SweepContext, outcome: FinalistsOutcome) -> SealedTest | None:
    """The champion and the baseline on the test split: once, after everything else is decided."""
    if outcome.champion is None:
        return None
    sweep.view.say("reading the sealed test split, once, for the champion and the baseline")
    champion, champion_draws = _test_score(sweep, outcome.of(outcome.champion))
    other = outcome.baseline()
    if other is None or other.trial == outcome.champion:
        return SealedTest(champion)
    baseline, baseline_draws = _test_score(sweep, other)
    compared = compare(champion.interval, baseline.interval, champion_draws, baseline_draws)
    return SealedTest(champion, baseline, compared.against(baseline.trial))


def _test_score(sweep: SweepContext, contestant: Contestant) -> tuple[TestScore, Draws]:
    """A contestant's best repeat on the test rows, with its draws."""
    chosen = best_repeat(contestant, sweep.config.objective)
    assert chosen.repeat is not None  # noqa: S101  # it is one
    metrics, rows = _score_on_test(sweep, contestant.trial, chosen.repeat)
    found, draws = _summary(sweep, [rows], 0)
    return TestScore(contestant.trial, chosen.repeat, metrics, found), draws


def _score_on_test(sweep: SweepContext, trial: int, repeat: int) -> tuple[dict[str, float], Rows]:
    paths = sweep.paths.repeat(trial, repeat)
    params = sweep.study.record(trial).params
    spec = sweep.specs.spec(trial, params, paths, threads=sweep.slots.threads, seed=sweep.config.seed + 1 + repeat)
    rows_file = Path(paths.dir, "test.npy")
    request = Score(
        spec.workload, sweep.inspection, sweep.slots.threads * sweep.slots.jobs, sweep.slots.devices(0), "test", spec,
        str(rows_file),
    )  # fmt: skip
    scored = run_alone(sweep.executor, request)
    assert isinstance(scored, Scored)  # noqa: S101  # the protocol's answer to Score
    return scored.metrics, read_rows(rows_file, sweep.executor.fetch)
