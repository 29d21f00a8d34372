"""Who really won: the best trials and the baseline again with fresh seeds, compared; then the sealed test, once.

Repeats stay outside the study: they have their own record (the study's attribute `finalists`), folders and MLflow runs.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpo.config.sweep_config import SweepConfig
from hpo.results.champion import choose_champion, ranked
from hpo.results.records import TrialRecord
from hpo.results.statistics import Comparison, Draws, Interval, compare, interval, resample
from hpo.search.context import SweepContext
from hpo.trials.calls import run_alone
from hpo.trials.job import Job
from hpo.trials.scheduler import TrialScheduler
from hpo.trials.trial_files import finished_on_disk, prepare_folder, read_rows, rows_of, write_examples, write_result
from trainers.metrics.table import Rows, row_results
from trainers.protocol.codec import fingerprint, to_json
from trainers.protocol.messages import Evaluation, Score, Scored, Step, TrialResult, TrialSpec, Verdict

FIRST_NUMBER = 1_000_000
"""Repeats are numbered from here, where no trial's number is."""


@dataclasses.dataclass(frozen=True)
class Repeat:
    """One training of a contestant with a seed of its own."""

    trial: int
    repeat: int
    spec: TrialSpec


def run_finalists(sweep: SweepContext) -> None:
    """Repeat, compare, choose the champion, read the test split; unless that has been done for these contestants."""
    wanted = sweep.config.finalists
    if wanted is None:
        sweep.study.set_attr("finalists", None)
        return
    contestants = contestants_of(sweep, wanted.top)
    repeats = repeats_of(sweep, contestants, wanted.seeds)
    identity = fingerprint([[r.trial, r.spec.fingerprint()] for r in repeats])
    if (sweep.study.attrs().get("finalists") or {}).get("identity") == identity:
        return
    sweep.view.say(
        f"finalists: trials {', '.join(str(c.number) for c in contestants)}; each again with {wanted.seeds} fresh seeds"
    )
    controller = FinalistController(sweep, repeats)
    minutes = sweep.config.budget.trial_minutes
    TrialScheduler(sweep.executor, sweep.inspection, sweep.slots, sweep.config.retry_policy, minutes, sweep.view).run(
        controller
    )
    outcome = compare_finalists(sweep, contestants, controller.results)
    outcome["identity"] = identity
    outcome["test"] = read_test(sweep, outcome)
    sweep.study.set_attr("finalists", outcome)


def repeats_planned(config: SweepConfig) -> int:
    """Trainings that the finalists will take, the baseline's included."""
    return (config.finalists.top + 1) * config.finalists.seeds if config.finalists else 0


def contestants_of(sweep: SweepContext, top: int) -> list[TrialRecord]:
    """The best trials, best first, and the baseline, which has to be beaten."""
    best = ranked(sweep.study.records(), sweep.config.objective, sweep.config.constraints)
    baseline = sweep.study.attrs().get("baseline")
    chosen = [r for r in best if r.number != baseline][:top]
    return chosen + [r for r in sweep.study.records() if r.number == baseline and r.state == "complete"]


def repeats_of(sweep: SweepContext, contestants: Sequence[TrialRecord], seeds: int) -> list[Repeat]:
    """Every contestant with every seed; none of them the search's own, on which the contestants were chosen."""
    repeats: list[Repeat] = []
    for contestant in contestants:
        for index in range(seeds):
            paths = sweep.paths.repeat(contestant.number, index)
            spec = sweep.config.trial_spec(
                FIRST_NUMBER + len(repeats), contestant.params, sweep.home, sweep.inspection, paths,
                sweep.slots.threads, seed=sweep.config.seed + 1 + index,
            )  # fmt: skip
            repeats.append(Repeat(contestant.number, index, spec))
    return repeats


class FinalistController:
    """The books of the repeats, as `hpo.trials.scheduler.TrialController`."""

    def __init__(self, sweep: SweepContext, repeats: Sequence[Repeat]) -> None:
        self._sweep = sweep
        self._by_number = {repeat.spec.number: repeat for repeat in repeats}
        self._waiting = deque(repeats)
        self.results: dict[tuple[int, int], tuple[TrialResult, str]] = {}
        """(trial, repeat) -> its result and its MLflow run."""
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


# --- judging -------------------------------------------------------------------------------------------


def compare_finalists(
    sweep: SweepContext, contestants: Sequence[TrialRecord], results: dict[tuple[int, int], tuple[TrialResult, str]]
) -> dict[str, Any]:
    """Mean and interval of each contestant, the champion, and its tests against baseline and runner-up, as JSON.

    A contestant of which a repeat failed is out: a point that trains only sometimes is no champion.
    """
    objective = sweep.config.objective
    told, draws = [], {}
    for position, record in enumerate(contestants):
        mine = [(i, *results[record.number, i]) for t, i in sorted(results) if t == record.number]
        repeats = [
            {"seed": sweep.config.seed + 1 + i, "value": r.value, "metrics": r.metrics, "run_id": run_id,
             "cause": r.cause, "seconds": r.seconds}
            for i, r, run_id in mine
        ]  # fmt: skip
        entry: dict[str, Any] = {
            "trial": record.number, "params": record.params, "repeats": repeats,
            "is_baseline": record.number == sweep.study.attrs().get("baseline"),
        }  # fmt: skip
        if all(r.value is not None for _, r, _ in mine):
            rows = [_rows_of(sweep, record.number, i, r) for i, r, _ in mine]
            entry["interval"], draws[record.number] = _summary(sweep, rows, position)
        told.append(entry)
    standing = sorted(
        (e for e in told if "interval" in e), key=lambda e: objective.sort_key(e["interval"]["mean"])
    )  # fmt: skip
    if not standing:
        return {"contestants": told, "champion": None, "against_baseline": None, "against_runner_up": None}
    champion = standing[0]
    baseline = next((e for e in standing if e["is_baseline"] and e is not champion), None)
    runner_up = next((e for e in standing[1:]), None)
    return {
        "contestants": told,
        "champion": champion["trial"],
        "against_baseline": _against(champion, baseline, draws),
        "against_runner_up": _against(champion, runner_up, draws),
    }


def _rows_of(sweep: SweepContext, trial: int, repeat: int, result: TrialResult) -> Rows:
    """Per-row validation results at the best evaluation of a repeat."""
    return rows_of(sweep.paths.repeat(trial, repeat), result.best_index or 0, sweep.executor.fetch)


def _summary(sweep: SweepContext, rows: list[Rows], contestant: int) -> tuple[dict[str, float], Draws]:
    metrics, labels = row_results(sweep.config.task, sweep.config.metrics).metrics, sweep.inspection.labels
    name = sweep.config.objective.metric

    def metric_of(drawn: Rows) -> float:
        return metrics(drawn, labels)[name]

    draws = resample(rows, metric_of, contestant, sweep.config.seed)
    return to_json(interval(rows, metric_of, draws)), draws


def _against(champion: dict[str, Any], other: dict[str, Any] | None, draws: dict[int, Draws]) -> dict[str, Any] | None:
    if other is None:
        return None
    compared = compare(
        Interval(**champion["interval"]), Interval(**other["interval"]), draws[champion["trial"]], draws[other["trial"]]
    )
    return _told(compared, other["trial"])


def _told(compared: Comparison, other: int) -> dict[str, Any]:
    return {"trial": other, **to_json(compared), "is_beyond_noise": compared.is_beyond_noise}


# --- the sealed test -----------------------------------------------------------------------------------


def read_test(sweep: SweepContext, outcome: dict[str, Any]) -> dict[str, Any] | None:
    """The champion and the baseline on the test split: once, after everything else is decided."""
    if outcome["champion"] is None:
        return None
    baseline = next((c["trial"] for c in outcome["contestants"] if c["is_baseline"] and "interval" in c), None)
    sweep.view.say("reading the sealed test split, once, for the champion and the baseline")
    read: dict[str, Any] = {}
    draws, intervals = {}, {}
    for role, trial in (("champion", outcome["champion"]), ("baseline", baseline)):
        if trial is None or (role == "baseline" and trial == outcome["champion"]):
            continue
        chosen = choose_champion([], sweep.config.objective, {}, {**outcome, "champion": trial})
        assert chosen is not None and chosen.repeat is not None  # noqa: S101, PT018  # a contestant with repeats
        metrics, rows = _score_on_test(sweep, trial, chosen.repeat)
        summary, draws[role] = _summary(sweep, [rows], 0)
        intervals[role] = Interval(**summary)
        read[role] = {"trial": trial, "repeat": chosen.repeat, "metrics": metrics, "interval": summary}
    if "baseline" in read:
        compared = compare(intervals["champion"], intervals["baseline"], draws["champion"], draws["baseline"])
        read["against_baseline"] = _told(compared, read["baseline"]["trial"])
    return read


def _score_on_test(sweep: SweepContext, trial: int, repeat: int) -> tuple[dict[str, float], Rows]:
    paths = sweep.paths.repeat(trial, repeat)
    params = sweep.study.record(trial).params
    spec = sweep.config.trial_spec(
        trial, params, sweep.home, sweep.inspection, paths, sweep.slots.threads, seed=sweep.config.seed + 1 + repeat
    )
    rows_file = Path(paths.dir, "test.npy")
    request = Score(
        spec.workload, sweep.inspection, sweep.slots.threads * sweep.slots.jobs, sweep.slots.devices(0), "test", spec,
        str(rows_file),
    )  # fmt: skip
    scored = run_alone(sweep.executor, request)
    assert isinstance(scored, Scored)  # noqa: S101  # the protocol's answer to Score
    return scored.metrics, read_rows(rows_file, sweep.executor.fetch)
