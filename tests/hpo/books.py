"""Books that a test hands to a `TrialScheduler`: they give out jobs and note what they are told."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable
from typing import Any

from hpo.results.records import Attempt
from hpo.trials.job import Job
from trainers.protocol.events import TrialResult


class Books:
    """Hands out jobs and notes what it is told."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.jobs = deque(jobs)
        self.told: list[tuple[str, int, Any]] = []
        self.results: dict[int, TrialResult] = {}
        self.attempts: dict[int, list[Attempt]] = {}
        self.spent = False
        self.verdicts: dict[tuple[int, int], str] = {}
        self.best_one_is_spared = True
        self.offered: list[list[int]] = []

    def next_job(self, slot):
        if not self.jobs:
            return None
        job = dataclasses.replace(self.jobs.popleft(), slot=slot)
        self.told.append(("start", job.number, slot))
        return job

    def is_spent(self):
        return self.spent

    def spared(self, jobs):
        self.offered.append([job.number for job in jobs])
        return max(jobs, key=lambda job: len(job.evaluations), default=None) if self.best_one_is_spared else None

    def resumed(self, job):
        self.told.append(("resumed", job.number, job.resumed_from))

    def stepped(self, job, step):
        self.told.append(("step", job.number, step.step))

    def evaluated(self, job, evaluation):
        self.told.append(("evaluated", job.number, evaluation.index))

    def verdict(self, job):
        return self.verdicts.get((job.number, job.evaluations[-1].index), "go")

    def retrying(self, job):
        self.told.append(("retrying", job.number, job.attempts[-1].cause))
        self.attempts[job.number] = list(job.attempts)

    def paused(self, job):
        self.told.append(("paused", job.number, job.resumed_from))
        self.attempts[job.number] = list(job.attempts)

    def finished(self, job, result):
        assert job.number not in self.results, "finished twice"
        self.told.append(("finished", job.number, result.state))
        self.results[job.number] = result
        self.attempts[job.number] = list(job.attempts)

    def of(self, number):
        return [(what, detail) for what, n, detail in self.told if n == number]
