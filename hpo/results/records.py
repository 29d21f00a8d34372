"""A study as read back: frozen records, past which no Optuna type travels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hpo.config.objective import Objective
from hpo.results.state import SweepState
from trainers.protocol.codec import was
from trainers.protocol.events import Cause, TrialResult
from trainers.protocol.settings import Setting

RETRIED = ("crash", "interrupted", "timeout")
"""Causes that say nothing of the point: the machine's fault, or chance's."""


@dataclass(frozen=True)
class Attempt:
    """One go at a trial that did not end it."""

    cause: Cause
    message: str
    seconds: float
    """The trial's own clock at the last event of this attempt."""
    resumed_from: int | None
    """The step that this attempt itself had begun from; None from the beginning."""
    micro_batch_halvings: int = field(metadata=was("halvings"), default=0)


@dataclass(frozen=True)
class TrialRecord:
    """One trial as the study remembers it."""

    number: int
    state: str
    """complete, pruned, failed or running."""
    params: dict[str, Setting]
    fingerprint: str
    """Of its spec: equal ones give equal numbers."""
    curve: list[tuple[float, float]] = field(default_factory=list)
    """(share of the budget, value) per evaluation, of the metric that the pruner looks at."""
    run_id: str | None = None
    result: TrialResult | None = None
    attempts: list[Attempt] = field(default_factory=list)
    """Those before the last one."""
    resumed_from: int | None = None
    """The step at which the last attempt went on."""
    reused_from: str | None = None
    """The trial whose result this one has: `7`, or `SWEEP/7`; it was not trained."""
    revision: int = 1
    """The revision of the sweep that it began in."""
    has_gone_on: bool = False
    """Whether the pruner had stopped it, and it was taken up again."""

    @property
    def is_over(self) -> bool:
        """Whether the trial has ended, with a result or as failed."""
        return self.state != "running"

    @property
    def is_duplicate(self) -> bool:
        """Whether it has the result of another trial of this sweep."""
        return self.reused_from is not None and self.reused_from.isdigit()


def is_lost(result: TrialResult) -> bool:
    """Whether a training ended for a reason that says nothing of its point: the machine, chance, or a spent budget."""
    return result.cause in RETRIED or result.stopped_by == "sweep_budget"


def may_be_baseline(record: TrialRecord) -> bool:
    """Whether others can be compared with a trial: it runs, came to its end, or failed because of its settings."""
    return record.result is None or not (record.state == "pruned" or is_lost(record.result))


def void_trials(records: Collection[TrialRecord], baseline: str, before: Collection[int]) -> set[int]:
    """Trials that are not counted; a later session tries their points again.

    Those that were lost while none of the sweep had succeeded: whoever ran it again had fixed what made them, and
    `before` are those that earlier sessions found so. Later, those at the baseline alone, since all are compared with
    it; `baseline` is its fingerprint.
    """
    lost = {record.number: record.fingerprint for record in records if record.result and is_lost(record.result)}
    if any(record.result and record.result.state != "failed" for record in records):
        lost = {number: point for number, point in lost.items() if point == baseline}
    return {*before, *lost}


@dataclass(frozen=True)
class StudySnapshot:
    """A whole study: what a sweep was asked to do, and what happened."""

    name: str
    state: SweepState
    records: list[TrialRecord]

    @property
    def config(self) -> dict[str, Any]:
        """The file as plain values, with defaults."""
        return self.state.config

    @cached_property  # each of thousands of trials is looked at by it, and by what is reported
    def objectives(self) -> tuple[Objective, ...]:
        """As the file names them, the first one first."""
        return tuple(Objective(o["metric"], o["direction"]) for o in self.config["objective"])

    @property
    def objective(self) -> Objective:
        """What the champion is chosen by."""
        return self.objectives[0]

    @cached_property
    def reported(self) -> str:
        """The metric of the trials' curves: the one that the pruner looks at."""
        return str(self.config.get("pruner", {}).get("metric", self.objective.metric))

    def objective_curve(self, record: TrialRecord) -> list[tuple[float, float]]:
        """The trial's curve of the objective. Of a trial under way it is empty where another metric is reported."""
        metric = self.objective.metric
        if self.reported == metric:
            return record.curve
        evaluations = record.result.evaluations if record.result and not record.reused_from else []
        return [(e.fraction, e.metrics[metric]) for e in evaluations if metric in e.metrics]

    def record(self, number: int) -> TrialRecord | None:
        """The trial of that number; None where this revision does not have it."""
        return next((record for record in self.records if record.number == number), None)
