"""One trial under way, how it ends, and the controller that decides about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from hpo.results.records import Attempt
from trainers.protocol.events import Evaluation, Failed, Step, TrialResult
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import Verdict
from trainers.protocol.trial_spec import TrialSpec

StopReason = Literal["trial_minutes", "sweep_budget"]


@dataclass
class Job:
    """One trial under way."""

    spec: TrialSpec
    paths: TrialPaths
    slot: int
    """Where its attempts run: the devices of its spec are this slot's. It gets another one only where that has left."""
    attempts: list[Attempt] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    seconds: float = 0.0
    """The trial's own clock."""
    resumed_from: int | None = None
    resumed_evaluations: int = 0
    """How many came before the checkpoint that it went on from."""
    stopped_for: StopReason | None = None
    repeat: tuple[int, int] | None = None
    """Of a repeat of a finalist: its trial and which repeat."""

    @property
    def number(self) -> int:
        """The trial's number: in the study, or from `FIRST_NUMBER` on for a repeat of a finalist."""
        return self.spec.number

    def take(self, evaluation: Evaluation) -> None:
        """Add an evaluation; one that a retry repeats takes the place of the first."""
        self.evaluations = [e for e in self.evaluations if e.index < evaluation.index] + [evaluation]


class TrialController(Protocol):
    """Decides what runs, and hears what happens: `SearchController` and `FinalistController`."""

    def next_job(self, slot: int) -> Job | None:
        """The next trial to run on a slot; None when there is none (for now). Asked once for each place of a slot."""
        ...

    def is_spent(self) -> bool:
        """Whether the budget allows no new trial, and interrupts those under way."""
        ...

    def spared(self, jobs: list[Job]) -> Job | None:
        """The one of `jobs` that runs to its end although the budget is spent."""
        ...

    def resumed(self, job: Job) -> None:
        """The job continues from a checkpoint, at step `job.resumed_from`."""
        ...

    def stepped(self, job: Job, step: Step) -> None:
        """The job made progress."""
        ...

    def evaluated(self, job: Job, evaluation: Evaluation) -> None:
        """The job was evaluated; a retry repeats the evaluations that it resumes from."""
        ...

    def verdict(self, job: Job) -> Verdict:
        """What becomes of the job after its last evaluation."""
        ...

    def retrying(self, job: Job) -> None:
        """The job failed and will be tried again; `job.attempts` ends with what failed."""
        ...

    def paused(self, job: Job) -> None:
        """The job is kept for a later session of the sweep: a person, or a spent budget, interrupted it."""
        ...

    def finished(self, job: Job, result: TrialResult) -> None:
        """The job is over, well or not."""
        ...


def failure(job: Job, failed: Failed) -> TrialResult:
    """The result of a trial that will not be tried again."""
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
