"""Keeps trials under way on the machine's slots: starts, listens, tries again, pauses, stops; keeps no controller."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass, field
from typing import Literal, Protocol

from hpo.errors import SweepError
from hpo.results.records import Attempt
from hpo.signals import StopWish, stop_wish
from hpo.trials.calls import data_error
from hpo.trials.context import SweepContext
from hpo.trials.retries import NOT_PAUSED, halvings_of_next_attempt, halvings_to_begin_with, is_disk_full
from trainers.protocol.codec import to_json
from trainers.protocol.files import TrialPaths, write_atomically
from trainers.protocol.messages import (
    Evaluation,
    Event,
    Failed,
    Resumed,
    Step,
    Train,
    TrialResult,
    TrialSpec,
    Verdict,
)

PAUSE_WITHIN_S = 120.0
"""A trial that has not written its checkpoint by then is ended all the same."""

StopReason = Literal["trial_minutes", "sweep_budget"]


@dataclass
class Job:
    """One trial under way."""

    spec: TrialSpec
    paths: TrialPaths
    slot: int
    attempts: list[Attempt] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    seconds: float = 0.0
    """The trial's own clock."""
    resumed_from: int | None = None
    heard_at: float = 0.0
    stopped_for: StopReason | None = None
    is_hung: bool = False
    is_given_up: bool = False
    """It was told to pause, did not in time, and is being ended."""

    @property
    def number(self) -> int:
        return self.spec.number

    def take(self, evaluation: Evaluation) -> None:
        """Add an evaluation; one that a retry repeats takes the place of the first."""
        self.evaluations = [e for e in self.evaluations if e.index < evaluation.index] + [evaluation]


class TrialController(Protocol):
    """Says what to run, and is told what happens. `SearchController` and `FinalistController` are it."""

    def next_job(self, slot: int) -> Job | None:
        """The next trial to run on a slot; None when there is none (for now)."""
        ...

    def is_spent(self) -> bool:
        """Whether the budget allows no new trial, and stops those under way."""
        ...

    def spared(self, jobs: list[Job]) -> Job | None:
        """The one of `jobs` that runs to its end although the budget is spent."""
        ...

    def resumed(self, job: Job) -> None: ...
    def stepped(self, job: Job, step: Step) -> None: ...
    def evaluated(self, job: Job, evaluation: Evaluation) -> None: ...
    def verdict(self, job: Job) -> Verdict: ...
    def retrying(self, job: Job) -> None: ...
    def paused(self, job: Job) -> None: ...
    def finished(self, job: Job, result: TrialResult) -> None: ...


class TrialScheduler:
    """`slots.jobs` trials at a time, until the books have no more."""

    def __init__(self, sweep: SweepContext) -> None:
        self._executor = sweep.executor
        self._inspection = sweep.inspection
        self._slots = sweep.slots
        self._retry_policy = sweep.config.retry_policy
        self._trial_minutes = sweep.config.budget.trial_minutes
        self._view = sweep.view
        self._jobs: dict[int, Job] = {}
        self._wish = StopWish()
        self._pause_began: float | None = None

    def run(self, controller: TrialController) -> None:
        """Returns when nothing is left to run.

        Raises `ConfigError` when a trial finds the data or config unusable, `SweepError` when the disk is full, and
        `KeyboardInterrupt` after Ctrl-C, once every trial has written a checkpoint.
        """
        with stop_wish() as self._wish:
            while True:
                self._fill(controller)
                if not self._jobs:
                    break
                message = self._executor.wait(timeout_s=1.0)
                if message is None:
                    self._view.tick()
                else:
                    self._handle(controller, *message)
                self._watch(controller)
            if self._wish.is_made:
                raise KeyboardInterrupt

    def _fill(self, controller: TrialController) -> None:
        while len(self._jobs) < self._slots.jobs and not self._wish.is_made and not controller.is_spent():
            taken = {job.slot for job in self._jobs.values()}
            job = controller.next_job(next(i for i in range(self._slots.jobs) if i not in taken))
            if job is None:
                return
            if self._wish.is_made:  # the books have begun it meanwhile: it is the next session's
                controller.paused(job)
                return
            job.spec = dataclasses.replace(job.spec, micro_batch_halvings=halvings_to_begin_with(job.attempts))
            self._launch(job)

    def _launch(self, job: Job) -> None:
        job.paths.dir.mkdir(parents=True, exist_ok=True)
        write_atomically(job.paths.spec, json.dumps(to_json(job.spec), indent=2))
        job.heard_at = time.monotonic()
        job.resumed_from, job.stopped_for, job.is_hung = None, None, False
        self._jobs[self._executor.submit(Train(job.spec, self._inspection))] = job

    def _handle(self, controller: TrialController, request_id: int, event: Event) -> None:
        job = self._jobs[request_id]
        job.heard_at = time.monotonic()
        if isinstance(event, Resumed):
            job.resumed_from = event.step
            controller.resumed(job)
            for evaluation in event.evaluations:
                job.take(evaluation)
                controller.evaluated(job, evaluation)
        elif isinstance(event, Step):
            job.seconds = event.seconds
            controller.stepped(job, event)
        elif isinstance(event, Evaluation):
            job.seconds = event.seconds
            job.take(event)
            controller.evaluated(job, event)
            if not self._wish.is_made and job.stopped_for is None:  # else its verdict is on the way, or about to be
                self._executor.reply(request_id, controller.verdict(job))
        elif isinstance(event, TrialResult):
            del self._jobs[request_id]
            controller.finished(job, _as_stopped(job, event))
        elif isinstance(event, Failed):
            del self._jobs[request_id]
            self._failed(controller, job, event)

    def _failed(self, controller: TrialController, job: Job, failed: Failed) -> None:
        """Try again, keep for later, or give up."""
        if failed.cause == "data":
            raise data_error(failed)
        if is_disk_full(failed) and not self._wish.is_made:
            raise SweepError(f"trial {job.number}: {failed.message}; make room, and the same command continues")
        if job.is_given_up or is_disk_full(failed):
            failed = NOT_PAUSED
        elif job.is_hung:
            failed = Failed("timeout", f"told nothing for {self._retry_policy.stall_minutes:g} minutes")
        elif job.stopped_for and failed.cause == "timeout":
            what = "trial_minutes" if job.stopped_for == "trial_minutes" else "the sweep's budget"
            controller.finished(job, failure(job, Failed("timeout", f"{what} ended before its first evaluation")))
            return
        attempt = Attempt(failed.cause, failed.message, job.seconds, job.resumed_from, job.spec.micro_batch_halvings)
        micro_batch_halvings = halvings_of_next_attempt(failed, job.spec, job.attempts, self._retry_policy.retries)
        if micro_batch_halvings is None:
            controller.finished(job, failure(job, failed))
        elif self._wish.is_made:
            job.attempts.append(attempt)
            controller.paused(job)
        else:
            job.attempts.append(attempt)
            job.spec = dataclasses.replace(job.spec, micro_batch_halvings=micro_batch_halvings)
            controller.retrying(job)
            self._launch(job)

    def _watch(self, controller: TrialController) -> None:
        """What time brings: a wish to stop, a spent budget, a trial over its minutes, a hung one."""
        now = time.monotonic()
        if self._wish.is_made:
            self._pause(now)
            return
        for request_id, job in self._jobs.items():
            if now - job.heard_at > self._retry_policy.stall_minutes * 60 and not job.is_hung:
                job.is_hung = True
                self._executor.kill(request_id)
            elif self._trial_minutes is not None and job.seconds > self._trial_minutes * 60:
                self._stop(request_id, job, "trial_minutes")
        if self._jobs and controller.is_spent():
            # Of those that run on: one that was told to stop may be further by now, but it ends all the same.
            spared = controller.spared([job for job in self._jobs.values() if job.stopped_for is None])
            for request_id, job in self._jobs.items():
                if job is not spared:
                    self._stop(request_id, job, "sweep_budget")

    def _pause(self, now: float) -> None:
        if self._pause_began is None:
            self._pause_began = now
            if self._jobs:
                self._view.say("stopping: trials write their checkpoints (Ctrl-C again: at once)")
            for request_id in self._jobs:
                self._executor.reply(request_id, "pause")
        elif now - self._pause_began > PAUSE_WITHIN_S:
            for request_id, job in self._jobs.items():
                if not job.is_given_up:
                    job.is_given_up = True
                    self._executor.kill(request_id)

    def _stop(self, request_id: int, job: Job, why: StopReason) -> None:
        if job.stopped_for is None:
            job.stopped_for = why
            self._executor.reply(request_id, "stop")


def _as_stopped(job: Job, result: TrialResult) -> TrialResult:
    """The result with the reason the trial was told to stop for.

    At the end of `trial_minutes` it is complete: minutes were its budget, and every trial has the same.
    """
    if result.stopped_by != "pruner" or job.stopped_for is None:
        return result
    state: Literal["complete", "pruned"] = "complete" if job.stopped_for == "trial_minutes" else "pruned"
    return dataclasses.replace(result, state=state, stopped_by=job.stopped_for)


def failure(job: Job, failed: Failed) -> TrialResult:
    """The result of a trial that is given up."""
    sign = -1 if job.spec.direction == "maximize" else 1
    best = min(job.evaluations, key=lambda e: e.metrics[job.spec.metric] * sign, default=None)
    return TrialResult(
        state="failed",
        value=None,
        metrics=best.metrics if best else {},
        best_index=best.index if best else None,
        evaluations=job.evaluations,
        stopped_by="failure",
        seconds=job.seconds,
        cause=failed.cause,
        message=failed.message,
    )
