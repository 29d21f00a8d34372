"""Keeps trials under way until the study has all of them: ask, train, judge each evaluation, tell."""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from hpo.config import SweepConfig
from hpo.errors import ConfigError, Problem, RequestFailed, SweepError
from hpo.executors.base import Executor
from hpo.home import Home
from hpo.pruning import successive_halving
from hpo.study import Study
from hpo.view import View
from trainers.catalog import Setting
from trainers.codec import from_json, to_json
from trainers.files import TrialPaths, write_atomically
from trainers.spec import Evaluation, Event, Failed, Inspection, Request, Step, TrainRequest, TrialResult, TrialSpec


class TrialLog(Protocol):
    """What the search needs of tracking; `hpo.tracking.Tracker` and `Untracked` are it."""

    def start_trial(self, spec: TrialSpec, params: Mapping[str, Setting], run_id: str | None) -> str: ...
    def step(self, number: int, step: Step) -> None: ...
    def evaluation(self, number: int, evaluation: Evaluation) -> None: ...
    def finish_trial(self, number: int, result: TrialResult, paths: TrialPaths) -> None: ...
    def best_so_far(self, finished: int, value: float) -> None: ...


class Untracked:
    """Tracking switched off: for tests and benchmarks of the search alone."""

    def start_trial(self, spec: TrialSpec, params: Mapping[str, Setting], run_id: str | None) -> str:
        return ""

    def step(self, number: int, step: Step) -> None: ...
    def evaluation(self, number: int, evaluation: Evaluation) -> None: ...
    def finish_trial(self, number: int, result: TrialResult, paths: TrialPaths) -> None: ...
    def best_so_far(self, finished: int, value: float) -> None: ...


@dataclass
class _UnderWay:
    spec: TrialSpec
    paths: TrialPaths
    slot: int
    evaluations: list[Evaluation]
    seconds: float = 0.0


@dataclass(frozen=True)
class Slots:
    """How many trials run side by side, and what each may use."""

    jobs: int
    threads: int
    gpus: int = 0

    def device(self, slot: int) -> str:
        return f"cuda:{slot % self.gpus}" if self.gpus else "cpu"


class Search:
    """One sweep's trials, `slots.jobs` at a time. `run` returns when all are over."""

    def __init__(
        self, config: SweepConfig, home: Home, inspection: Inspection, study: Study, tracker: TrialLog,
        executor: Executor, view: View, slots: Slots,
    ) -> None:  # fmt: skip
        self._config = config
        self._home = home
        self._inspection = inspection
        self._study = study
        self._tracker = tracker
        self._executor = executor
        self._view = view
        self._slots = slots
        self._interrupted = deque(study.interrupted())
        self._under_way: dict[int, _UnderWay] = {}
        records = study.records()
        self.finished = sum(r.state in ("complete", "pruned", "failed") for r in records)
        self.best = best_value(study)
        self._run_ids = {r.number: r.run_id for r in records}

    def run(self) -> None:
        """Train until the planned number of trials is over.

        Raises `ConfigError` when a trial finds the data or config unusable, `SweepError` when no trial succeeded.
        """
        while True:
            while len(self._under_way) < self._slots.jobs and self._start_next():
                pass
            if not self._under_way:
                break
            message = self._executor.wait(timeout_s=1.0)
            if message is None:
                self._view.tick()
            else:
                self._handle(*message)
        self._check_any_succeeded()

    def _check_any_succeeded(self) -> None:
        failures = [r.result for r in self._study.records() if r.result and r.result.state == "failed"]
        if best_value(self._study) is None:
            last = f"; the last one: {failures[-1].cause}: {failures[-1].message}" if failures else ""
            raise SweepError(f"no trial of {self._config.name} succeeded{last}")

    def _start_next(self) -> bool:
        """Start one more trial, interrupted ones first; False when there is none left."""
        if self._interrupted:
            number = self._interrupted.popleft()
            params = self._study.resume(number)
        elif self._study.finished_or_running() < self._config.planned_trials():
            number, params = self._study.ask()
        else:
            return False
        paths = self._home.sweep(self._config.name).trial(number)
        taken = {trial.slot for trial in self._under_way.values()}
        slot = next(i for i in range(self._slots.jobs) if i not in taken)
        spec = self._config.trial_spec(
            number, params, self._home, self._inspection, paths, self._slots.threads, self._slots.device(slot)
        )
        run_id = self._tracker.start_trial(spec, params, self._run_ids.get(number))
        self._study.set_run_id(number, run_id)
        self._view.trial_started(number, params)
        trial = _UnderWay(spec, paths, slot, [])
        if result := _finished_on_disk(trial):
            self._replay(trial, result)
            return True
        shutil.rmtree(paths.dir, ignore_errors=True)  # of an interrupted attempt, or of a study that is gone
        paths.dir.mkdir(parents=True)
        write_atomically(paths.spec, json.dumps(to_json(spec), indent=2))
        self._under_way[self._executor.submit(TrainRequest(spec, self._inspection))] = trial
        return True

    def _replay(self, trial: _UnderWay, result: TrialResult) -> None:
        """A trial that had ended when the sweep was killed: its result stands on disk, so book it."""
        for evaluation in result.evaluations:
            self._record(trial, evaluation)
        self._finish(trial, result)

    def _handle(self, request_id: int, event: Event) -> None:
        trial = self._under_way[request_id]
        number = trial.spec.number
        if isinstance(event, (Step, Evaluation)):
            trial.seconds = event.seconds
        if isinstance(event, Step):
            self._tracker.step(number, event)
            self._view.step(number, event.examples / trial.spec.max_examples, event.loss)
        elif isinstance(event, Evaluation):
            self._record(trial, event)
            self._executor.reply(request_id, "stop" if self._should_prune(number) else "go")
        elif isinstance(event, TrialResult):
            del self._under_way[request_id]
            self._finish(trial, event)
        elif isinstance(event, Failed):
            del self._under_way[request_id]
            if event.cause == "data":
                raise data_error(event)
            self._finish(trial, _failure(trial, event))

    def _record(self, trial: _UnderWay, evaluation: Evaluation) -> None:
        value = evaluation.metrics[trial.spec.metric]
        trial.evaluations.append(evaluation)
        self._study.report(trial.spec.number, evaluation.fraction, value)
        self._tracker.evaluation(trial.spec.number, evaluation)
        self._view.evaluated(trial.spec.number, evaluation.fraction, value)

    def _should_prune(self, number: int) -> bool:
        """The baseline is never pruned: everything is compared with it."""
        pruner = self._config.pruner
        if number == 0 or pruner.type == "none":
            return False
        return successive_halving(
            self._study.curves, number, self._config.objective,
            min_fraction=pruner.min_fraction, reduction_factor=pruner.reduction_factor,
            tolerance=pruner.tolerance,
        )  # fmt: skip

    def _finish(self, trial: _UnderWay, result: TrialResult) -> None:
        """Disk, then MLflow, then the study: the truth is told last, so a kill in between is done again."""
        number = trial.spec.number
        if not trial.paths.result.exists():
            trial.paths.dir.mkdir(parents=True, exist_ok=True)
            write_atomically(trial.paths.result, json.dumps(to_json(result), indent=2))
        self._tracker.finish_trial(number, result, trial.paths)
        self._study.finish(number, result)
        self.finished += 1
        is_best = False
        if result.state == "complete" and result.value is not None:
            objective = self._config.objective
            is_best = self.best is None or objective.better(result.value, self.best)
            self.best = result.value if is_best else self.best
        if self.best is not None:
            self._tracker.best_so_far(self.finished, self.best)
        self._view.trial_finished(number, result, self.finished, is_best=is_best)


def best_value(study: Study) -> float | None:
    """The best value of any complete trial (a pruned one's last value is not comparable)."""
    values = [r.result.value for r in study.records() if r.state == "complete" and r.result]
    known = [v for v in values if v is not None]
    return min(known, key=study.objective.sort_key) if known else None


def run_alone(executor: Executor, request: Request) -> Event:
    """Run one request while nothing else is under way; returns its terminal event.

    Raises `ConfigError` for problems in data or model, `RequestFailed` for any other failure.
    """
    request_id = executor.submit(request)
    while True:
        message = executor.wait()
        if message is None or message[0] != request_id:
            continue
        event = message[1]
        if isinstance(event, Failed):
            raise data_error(event) if event.cause == "data" else RequestFailed(f"{event.cause}: {event.message}")
        if not isinstance(event, (Step, Evaluation)):
            return event


def data_error(failure: Failed) -> ConfigError:
    """A trainer's findings as the error a person sees."""
    findings = [Problem(f.where, f.found, f.expected) for f in failure.findings]
    return ConfigError(findings or [Problem("data", failure.message)])


def _failure(trial: _UnderWay, failed: Failed) -> TrialResult:
    best = min(
        trial.evaluations,
        key=lambda e: e.metrics[trial.spec.metric] * (-1 if trial.spec.direction == "maximize" else 1),
        default=None,
    )
    return TrialResult(
        state="failed",
        value=None,
        metrics=best.metrics if best else {},
        best_index=best.index if best else None,
        evaluations=trial.evaluations,
        stopped_by="failure",
        seconds=trial.seconds,
        cause=failed.cause,
        message=failed.message,
    )


def _finished_on_disk(trial: _UnderWay) -> TrialResult | None:
    """The result an earlier process left, if it is of the same spec."""
    if not (trial.paths.result.exists() and trial.paths.spec.exists()):
        return None
    spec = from_json(TrialSpec, json.loads(trial.paths.spec.read_text()))
    if spec.fingerprint() != trial.spec.fingerprint():
        return None
    return from_json(TrialResult, json.loads(trial.paths.result.read_text()))
