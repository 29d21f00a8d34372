"""Keeps trials under way on the machine's slots: starts, listens, tries again, pauses, stops."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

from hpo.errors import SweepError
from hpo.executors.environment import environment_here
from hpo.results.records import Attempt
from hpo.results.timeline import Stint
from hpo.signals import StopWish, stop_wish
from hpo.trials.calls import data_error
from hpo.trials.context import SweepContext
from hpo.trials.environment import write_environment
from hpo.trials.job import Job, StopReason, TrialController, failure
from hpo.trials.retries import NOT_PAUSED, halvings_of_next_attempt, halvings_to_begin_with, is_disk_full
from hpo.trials.trial_files import write_spec
from trainers.protocol.events import (
    TERMINAL,
    Evaluation,
    Event,
    Failed,
    Resumed,
    Step,
    TrialEvent,
    TrialReport,
    TrialResult,
)
from trainers.protocol.requests import Train

PAUSE_WITHIN_S = 120.0
"""A trial that has not written its checkpoint by then is ended all the same."""


@dataclass
class _Running:
    """One request under way: a process, with one job or several in it."""

    slot: int
    jobs: dict[int, Job]
    """Trial -> its job, of those that have not ended."""
    heard_at: float
    began: float
    """Seconds since 1970."""
    is_hung: bool = False
    is_given_up: bool = False
    """It did not pause in time, and is being killed."""


class TrialScheduler:
    """A request in each of the slots, until the controller has no more trials."""

    def __init__(self, sweep: SweepContext) -> None:
        self._executor = sweep.executor
        self._inspection = sweep.inspection
        self._slots = sweep.slots
        self._retry_policy = sweep.config.retry_policy
        self._trial_minutes = sweep.config.budget.trial_minutes
        self._view = sweep.view
        self._observer = sweep.observer
        self._began = time.time()
        self._running: dict[int, _Running] = {}
        self._waiting: list[Job] = []
        """Jobs to try again, each alone, once their slot is free."""
        self._wish = StopWish()
        self._pause_began: float | None = None
        self._listened_at = time.monotonic()

    def run(self, controller: TrialController) -> None:
        """Returns when nothing is left to run.

        Raises `ConfigError` when a trial finds the data or config unusable, `SweepError` when the disk is full, and
        `KeyboardInterrupt` after Ctrl-C, once every trial has written a checkpoint.
        """
        with stop_wish() as self._wish:
            while True:
                self._start_waiting(controller)
                self._fill(controller)
                if self._is_over():
                    break
                self._excuse()
                message = self._executor.wait(timeout_s=1.0)
                if message is None:
                    self._view.tick()
                self._listened_at = time.monotonic()
                if message is not None:
                    self._handle(controller, *message)
                self._excuse()
                self._watch(controller)
                self._observer.looked()
            if self._wish.is_made:
                raise KeyboardInterrupt

    def _is_over(self) -> bool:
        """Whether nothing is under way, and nothing was left to begin; without any slot nobody could know."""
        return not self._running and not self._waiting and (self._wish.is_made or bool(self._slots.open()))

    # --- starting ----------------------------------------------------------------------------------------

    def _fill(self, controller: TrialController) -> None:
        """Start new trials in the slots that are free."""
        for slot in self._free():
            jobs = self._new_jobs(controller, slot)
            if not jobs:
                return
            self._launch(jobs)

    def _free(self) -> list[int]:
        taken = {running.slot for running in self._running.values()}
        return [slot for slot in self._slots.open() if slot not in taken]

    def _new_jobs(self, controller: TrialController, slot: int) -> list[Job]:
        """The jobs of one request: as many as share a slot, or as many as there are."""
        jobs: list[Job] = []
        while len(jobs) < self._slots.trials_per_request and not self._wish.is_made and not controller.is_spent():
            job = controller.next_job(slot)
            if job is None:
                break
            job.spec = dataclasses.replace(job.spec, micro_batch_halvings=halvings_to_begin_with(job.attempts))
            jobs.append(job)
        if self._wish.is_made:  # the controller has begun them meanwhile: they are the next session's
            for job in jobs:
                controller.paused(job)
            return []
        return jobs

    def _start_waiting(self, controller: TrialController) -> None:
        """Try again, each alone, what has failed, in its slot once that is free; in any other where it is gone."""
        waiting, self._waiting = self._waiting, []
        for job in waiting:
            free = self._free()
            if job.slot not in self._slots.open() and free:
                job.slot = free[0]
            if self._wish.is_made:
                controller.paused(job)
            elif job.slot in free:
                devices = self._slots.devices(job.slot)[: int(job.spec.settings["devices"] or 1)]
                job.spec = dataclasses.replace(job.spec, devices=devices)
                self._launch([job])
            else:
                self._waiting.append(job)

    def _launch(self, jobs: list[Job]) -> None:
        """Start a request with these jobs, all of one slot."""
        slot = jobs[0].slot
        environment = self._slots.environment(slot) or environment_here(self._inspection.gpu_names)
        for job in jobs:
            write_environment(environment, job.spec, job.paths)
            write_spec(job.spec, job.paths)
            job.resumed_from, job.stopped_for = None, None
        running = _Running(slot, {job.number: job for job in jobs}, time.monotonic(), time.time())
        request = Train(tuple(job.spec for job in jobs), self._inspection)
        self._running[self._slots.submit(self._executor, slot, request)] = running

    # --- listening ---------------------------------------------------------------------------------------

    def _excuse(self) -> None:
        """Nobody counts as hung for what was not listened to: a write may have waited minutes for its server."""
        now = time.monotonic()
        for running in self._running.values():
            running.heard_at += now - self._listened_at
        self._listened_at = now

    def _handle(self, controller: TrialController, request_id: int, event: Event) -> None:
        running = self._running[request_id]
        running.heard_at = time.monotonic()
        if isinstance(event, TrialEvent):
            self._take(controller, request_id, running.jobs[event.trial], event.report)
        elif isinstance(event, TERMINAL):
            del self._running[request_id]
            lost = event if isinstance(event, Failed) else Failed("crash", "the trainer ended without a result")
            for job in running.jobs.values():
                self._failed(controller, running, job, lost)
            self._start_waiting(controller)

    def _take(self, controller: TrialController, request_id: int, job: Job, report: TrialReport) -> None:
        """Pass on what happened to one trial."""
        running = self._running[request_id]
        if isinstance(report, Resumed):
            job.resumed_from, job.resumed_evaluations = report.step, len(report.evaluations)
            controller.resumed(job)
            for evaluation in report.evaluations:
                job.take(evaluation)
                controller.evaluated(job, evaluation)
        elif isinstance(report, Step):
            job.seconds = report.seconds
            controller.stepped(job, report)
        elif isinstance(report, Evaluation):
            job.seconds = report.seconds
            job.take(report)
            controller.evaluated(job, report)
            if not self._wish.is_made and job.stopped_for is None:  # else its verdict is on the way, or about to be
                self._executor.reply(request_id, job.number, controller.verdict(job))
        elif isinstance(report, TrialResult):
            del running.jobs[job.number]
            self._attempted(running, job, report.state)
            controller.finished(job, report)
        else:
            del running.jobs[job.number]
            self._failed(controller, running, job, report)

    def _failed(self, controller: TrialController, running: _Running, job: Job, failed: Failed) -> None:
        """Try again, keep for later, or give up."""
        if failed.cause == "data":
            raise data_error(failed)
        if is_disk_full(failed) and not self._wish.is_made:
            raise SweepError(f"trial {job.number}: {failed.message}; make room, and the same command continues")
        if running.is_given_up or is_disk_full(failed):
            failed = NOT_PAUSED
        elif running.is_hung:
            limit = f"{self._retry_policy.stall_minutes:g} min (trials.stall_minutes)"
            failed = Failed("timeout", f"no progress for {limit}")
        elif job.stopped_for == "trial_minutes" and failed.cause == "timeout":
            self._attempted(running, job, failed.cause)
            early = Failed("timeout", "trial_minutes ended before its first evaluation")
            controller.finished(job, failure(job, early))
            return
        self._attempted(running, job, failed.cause)
        attempt = Attempt(failed.cause, failed.message, job.seconds, job.resumed_from, job.spec.micro_batch_halvings)
        micro_batch_halvings = halvings_of_next_attempt(failed, job.spec, job.attempts, self._retry_policy.retries)
        if micro_batch_halvings is None:
            controller.finished(job, failure(job, failed))
        elif self._wish.is_made or job.stopped_for == "sweep_budget":
            job.attempts.append(attempt)
            controller.paused(job)
        else:
            job.attempts.append(attempt)
            job.spec = dataclasses.replace(job.spec, micro_batch_halvings=micro_batch_halvings)
            controller.retrying(job)
            self._waiting.append(job)

    def _attempted(self, running: _Running, job: Job, how: str) -> None:
        """An attempt has ended, as the timeline keeps it."""
        trial, repeat = job.repeat or (job.number, None)
        times = (self._began, running.began, time.time())
        workers = max(self._slots.jobs, running.slot + 1)  # machines may have joined
        self._observer.attempted(Stint(trial, repeat, running.slot, workers, *times, how))

    def _watch(self, controller: TrialController) -> None:
        """What time brings: a wish to stop, a spent budget, a trial over its minutes, a hung one."""
        now = time.monotonic()
        if self._wish.is_made:
            self._pause(now)
            return
        for request_id, running in self._running.items():
            # Of the request: while one of its trials makes progress, their process does.
            if now - running.heard_at > self._retry_policy.stall_minutes * 60 and not running.is_hung:
                running.is_hung = True
                self._executor.kill(request_id)
                continue
            for job in running.jobs.values():
                if self._trial_minutes is not None and job.seconds > self._trial_minutes * 60:
                    self._stop(request_id, job, "trial_minutes")
        if self._jobs() and controller.is_spent():
            # Of those that go on: one that was asked to pause may be further by now, but it pauses all the same.
            spared = controller.spared([job for _, job in self._jobs() if job.stopped_for is None])
            for request_id, job in self._jobs():
                if job is not spared:
                    self._stop(request_id, job, "sweep_budget")

    def _jobs(self) -> list[tuple[int, Job]]:
        """Every job under way, with its request."""
        return [(request_id, job) for request_id, running in self._running.items() for job in running.jobs.values()]

    def _pause(self, now: float) -> None:
        if self._pause_began is None:
            self._pause_began = now
            if self._jobs():
                self._view.say("stopping: trials write their checkpoints; press Ctrl-C again to stop immediately")
            for request_id, job in self._jobs():
                self._executor.reply(request_id, job.number, "pause")
        elif now - self._pause_began > PAUSE_WITHIN_S:
            for request_id, running in self._running.items():
                if not running.is_given_up:
                    running.is_given_up = True
                    self._executor.kill(request_id)

    def _stop(self, request_id: int, job: Job, why: StopReason) -> None:
        if job.stopped_for is None:
            job.stopped_for = why
            self._executor.reply(request_id, job.number, "finish" if why == "trial_minutes" else "pause")
