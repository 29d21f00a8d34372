"""A sweep as data: what `hpo show --json` prints and the terminal shows. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from hpo.config.budget import Budget, Spent
from hpo.config.dimensions import Choice, edge, wider
from hpo.config.objective import Constraints, Objective, excess
from hpo.config.space import from_resolved
from hpo.config.strategy import ResolvedStrategy
from hpo.quoting import listed
from hpo.results.champion import Champion, choose_champion, front
from hpo.results.diagnosis import Advice, Knobs, advice, knobs_of_trials
from hpo.results.json_text import finite_only
from hpo.results.left_out import LeftOut
from hpo.results.outcome import FinalistsOutcome, SealedTest
from hpo.results.records import Attempt, StudySnapshot, TrialRecord
from hpo.results.released import Release, TorchNumbers, VariantVerdict
from hpo.results.savings import Savings, savings
from hpo.results.state import Revision
from hpo.results.timeline import Stint
from trainers.protocol.codec import from_json, to_plain, to_record
from trainers.protocol.events import PreparedData
from trainers.protocol.settings import FIELDS, Setting


class TrialSummary(Struct, frozen=True):
    """One trial. A sweep may have thousands, and msgspec makes one in a sixth of a dataclass's time."""

    number: int
    value: float | None
    metrics: Mapping[str, float]
    params: Mapping[str, Setting]
    run_id: str | None
    state: str
    """complete, pruned, failed, running or interrupted."""
    is_baseline: bool
    revision: int
    seconds: float | None
    trainable_parameters: int | None
    adapter_mb: float | None
    cause: str | None
    message: str
    stopped_by: str | None
    attempts: Sequence[Attempt]
    resumed_from: int | None
    reused_from: str | None
    curve: Sequence[tuple[float, float]]
    """(share of the budget, the objective's value) of each evaluation."""
    advice: Sequence[Advice]
    exceeds: Sequence[str]
    """Of a complete trial: the constraints that it does not keep, for which it is no champion."""

    def to_json(self) -> dict[str, Any]:
        """As `hpo show --json` prints it, but with the same mappings and lists."""
        return {**asdict(self), "attempts": [to_record(a) for a in self.attempts],
                "advice": [asdict(a) for a in self.advice]}  # fmt: skip


@dataclass(frozen=True)
class Baseline:
    """The trial with the default configuration, and the base model without any training."""

    number: int
    value: float | None
    metrics: Mapping[str, float]
    params: Mapping[str, Setting]
    run_id: str | None
    base_model: Mapping[str, float] | None
    """Metrics of the untouched base model, where the task has them without training."""


@dataclass(frozen=True)
class Edge:
    """A dimension in which the champion lies at the edge of the space."""

    dimension: str
    value: Setting
    bound: str
    """`low` or `high`."""
    now: float
    further: float
    """The wider bound to try."""

    def to_json(self) -> dict[str, Any]:
        """As `hpo show --json` prints it."""
        return {"dimension": self.dimension, "value": self.value, "bound": self.bound, "now": self.now,
                "try": self.further}  # fmt: skip


@dataclass(frozen=True)
class Usage:
    """What the sweep has used: trials trained, wall time, GPU time, money."""

    trials: int
    hours: float
    gpu_hours: float
    cost: float | None
    """None where the file gives no `cost_per_hour`."""


@dataclass(frozen=True)
class SweepSummary:
    """A sweep, whole."""

    sweep: str
    state: str
    """running, complete, interrupted or failed."""
    task: str
    objective: Objective
    objectives: Sequence[Objective]
    strategy: ResolvedStrategy | None
    revision: int
    revisions: Sequence[Revision]
    trials: Sequence[TrialSummary]
    baseline: Baseline | None
    champion: Champion | None
    pareto_front: Sequence[int] | None
    """Trials that no other one beats in every objective; None with one objective."""
    edges: Sequence[Edge]
    finalists: FinalistsOutcome | None
    spent: Usage
    savings: Savings
    search_ended_by: str | None
    data: PreparedData | None
    torch: TorchNumbers | None
    variants: Sequence[VariantVerdict]
    release: Release | None
    refusal: str | None
    challenger: Release | None = None
    chosen_trial: int | None = None
    """The trial that a person released instead of the champion."""
    variants_trial: int | None = None
    """The trial that `torch` and `variants` are of: one that a person chose, or the champion of that time."""
    champion_files: Mapping[str, str] = field(default_factory=dict)
    """Name -> path of what the champion gets wrong."""
    timeline: Sequence[Stint] = ()
    """Every attempt at a training; empty for sweeps of before it was recorded."""
    left_out: LeftOut = field(default_factory=LeftOut)
    """Points that are not tried, because they need more memory than there is."""
    unread: Sequence[str] = ()
    """Why something is missing here, or in the report: each of a file that cannot be read."""

    @property
    def test(self) -> SealedTest | None:
        """What the sealed test showed."""
        return self.finalists.test if self.finalists else None

    @property
    def lost_baseline(self) -> str | None:
        """Why nothing can be compared with the baseline; None where it can, or where the baseline is under way."""
        trial = next((trial for trial in self.trials if trial.is_baseline), None)
        if trial is None or trial.state in ("complete", "running"):
            return None
        how = f"failed ({trial.cause})" if trial.state == "failed" else "was stopped before its end"
        return f"trial {trial.number} {how}"

    def interrupted_line(self) -> str:
        """In a sentence, the trials that its spent budget interrupted; empty where there are none."""
        found = [trial.number for trial in self.trials if trial.state == "interrupted"]
        if not found or self.state != "complete":
            return ""
        trials = f"trial{'s' * (len(found) > 1)} {listed(found)}"
        return f"the budget interrupted {trials}: with a larger one, hpo sweep continues from the checkpoints"

    def of_release(self, released: Champion) -> SweepSummary:
        """The same with the numbers of the training that is released; those of the finalists are of the champion."""
        own = self.champion
        if own and (own.number, own.repeat) == (released.number, released.repeat):
            return self
        return dataclasses.replace(self, champion=released, finalists=None, edges=[])

    def to_json(self) -> dict[str, Any]:
        """As `hpo show --json` prints it, without numbers that JSON does not have (NaN, infinity): None."""
        plain: dict[str, Any] = finite_only(self.for_json_text())
        return plain

    def for_json_text(self) -> dict[str, Any]:
        """The same with those numbers, for which `json_text` writes null: a copy of all trials takes time."""
        plain = {f.name: to_plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {**plain, "test": to_plain(self.test)}


def summarize(
    view: StudySnapshot, state: str, champion_files: Mapping[str, str] | None = None, timeline: Sequence[Stint] = (),
    unread: Sequence[str] = (),
) -> SweepSummary:  # fmt: skip
    """A study as read back, summed up; `state` is the sweep's as the caller found it."""
    stored, records = view.state, sorted(view.records, key=lambda r: r.number)
    constraints = view.config["constraints"]
    champion = choose_champion(records, view.objective, constraints, stored.finalists)
    baseline = next((r for r in records if r.number == stored.baseline), None)
    has = knobs_of_trials(view.config, stored.budget_setting)
    return SweepSummary(
        sweep=view.name,
        state=state,
        task=view.config["task"],
        objective=view.objective,
        objectives=view.objectives,
        strategy=stored.strategy,
        revision=stored.revision,
        revisions=stored.revisions,
        trials=[_trial(r, baseline, view, has, is_under_way=state == "running") for r in records],
        baseline=_baseline(baseline, stored.base_score) if baseline else None,
        champion=champion,
        pareto_front=front(records, view.objectives, constraints) if len(view.objectives) > 1 else None,
        edges=edges(champion, view.config["search_space"]) if champion else [],
        finalists=stored.finalists,
        spent=usage(records, from_json(Budget, view.config["budget"]), stored.spent),
        savings=savings(view),
        search_ended_by=stored.search_ended_by,
        data=stored.data,
        torch=stored.torch,
        variants=stored.variants,
        release=stored.release,
        refusal=stored.refusal,
        challenger=stored.challenger,
        chosen_trial=stored.chosen_trial,
        variants_trial=stored.variants_trial,
        champion_files=champion_files or {},
        timeline=timeline,
        left_out=stored.left_out,
        unread=unread,
    )


def usage(records: Sequence[TrialRecord], budget: Budget, spent: Spent) -> Usage:
    """What the sweep has used so far."""
    trained = sum(r.is_over and not r.reused_from for r in records)
    return Usage(trained, spent.seconds / 3600, spent.all_gpu_seconds / 3600, spent.cost(budget))


def edges(champion: Champion, space: Mapping[str, Any]) -> list[Edge]:
    """Dimensions in which the champion lies at the edge of the space, with the wider bound to try."""
    found = []
    for name, dimension in from_resolved(space).dimensions.items():
        if isinstance(dimension, Choice) or name not in champion.params:
            continue
        if end := edge(dimension, champion.params[name]):
            bound = "low" if end == "lower" else "high"
            further = wider(dimension, end, FIELDS[name])
            if further is not None:  # None where the setting itself ends there
                found.append(Edge(name, champion.params[name], bound, getattr(dimension, bound), further))
    return found


def _baseline(record: TrialRecord, base_score: Mapping[str, float] | None) -> Baseline:
    result = record.result
    value, metrics = (result.value, result.metrics) if result else (None, {})
    return Baseline(record.number, value, metrics, record.params, record.run_id, base_score)


def _trial(
    record: TrialRecord, baseline: TrialRecord | None, view: StudySnapshot,
    has: Callable[[Mapping[str, Setting]], Knobs], *, is_under_way: bool,
) -> TrialSummary:  # fmt: skip
    result = record.result
    # The study keeps an interrupted trial as running, also at the end of a spent budget: it may go on under its number.
    state = "interrupted" if record.state == "running" and not is_under_way else record.state
    return TrialSummary(
        number=record.number,
        value=result.value if result else None,
        metrics=result.metrics if result else {},
        params=record.params,
        run_id=record.run_id,
        state=state,
        is_baseline=record is baseline,
        revision=record.revision,
        seconds=result.seconds if result else None,
        trainable_parameters=result.trainable_parameters if result else None,
        adapter_mb=result.adapter_mb if result else None,
        cause=result.cause if result else None,
        message=result.message if result else "",
        stopped_by=result.stopped_by if result else None,
        attempts=record.attempts,
        resumed_from=record.resumed_from,
        reused_from=record.reused_from,
        curve=view.objective_curve(record),
        advice=[] if result is None or record.is_duplicate else advice(result, view.objective, has(record.params)),
        exceeds=_exceeds(record, view.config["constraints"]),
    )


def _exceeds(record: TrialRecord, constraints: Constraints) -> list[str]:
    if not constraints or record.state != "complete" or record.result is None:
        return []
    return [f"max_{name}" for name, by in excess(record.result, constraints).items() if by > 0]
