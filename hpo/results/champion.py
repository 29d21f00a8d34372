"""Who is the champion: the best trial that keeps the constraints, or whom the finalists' repeats confirmed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from hpo.config.objective import Constraints, Objective, excess, pareto_front, value_of
from hpo.results.outcome import Contestant, FinalistsOutcome
from hpo.results.records import TrialRecord
from trainers.protocol.settings import Setting


@dataclass(frozen=True)
class Champion:
    """The trial whose point won, and the training whose adapter is released."""

    number: int
    value: float
    metrics: Mapping[str, float]
    params: Mapping[str, Setting]
    run_id: str
    repeat: int | None = None
    """Which of the finalist's repeats; None for the trial itself."""


def run_name(sweep: str, trial: int, repeat: int | None) -> str:
    """What `hpo reproduce` calls a training."""
    return f"{sweep}#{trial}" + ("" if repeat is None else f".{repeat}")


def is_feasible(record: TrialRecord, constraints: Constraints) -> bool:
    """Whether a trial has a result that keeps all constraints."""
    if record.result is None:
        return False
    return not constraints or all(by <= 0 for by in excess(record.result, constraints).values())


def ranked(records: Sequence[TrialRecord], objective: Objective, constraints: Constraints) -> list[TrialRecord]:
    """Complete trials that keep the constraints, best first; of equal points only the one that was trained.

    Pruned trials have not earned comparison.
    """
    complete = [
        (r.result.value, r)
        for r in records
        if r.state == "complete" and r.result and r.result.value is not None
        and not r.is_duplicate and is_feasible(r, constraints)
    ]  # fmt: skip
    keys = objective.sort_keys(value for value, _ in complete)
    ordered = sorted(((key, r.number, r) for key, (_, r) in zip(keys, complete, strict=True)), key=itemgetter(0, 1))
    return [r for _, _, r in ordered]


def choose_champion(
    records: Sequence[TrialRecord], objective: Objective, constraints: Constraints, finalists: FinalistsOutcome | None
) -> Champion | None:
    """None when no complete trial keeps the constraints, or every finalist failed with some seed."""
    if finalists:
        return None if finalists.champion is None else best_repeat(finalists.of(finalists.champion), objective)
    best = ranked(records, objective, constraints)
    return as_champion(best[0]) if best else None


def why_none(states: Iterable[str], finalists: FinalistsOutcome | None) -> str:
    """Why a sweep has no champion, by the states of its trials."""
    if finalists:
        return "no champion: every finalist had a training that failed"
    if "complete" in states:
        return "no champion: no complete trial keeps the constraints"
    return "no trial is complete yet"


def as_champion(record: TrialRecord) -> Champion | None:
    """A trial as the search trained it; None when it has no value."""
    result = record.result
    if result is None or result.value is None:
        return None
    return Champion(record.number, result.value, result.metrics, record.params, record.run_id or "")


def best_repeat(contestant: Contestant, objective: Objective) -> Champion:
    """The best of a contestant's repeats, all of which have a value, on the rows that choose."""
    values = [repeat.metrics[objective.metric] for repeat in contestant.repeats]
    chosen_by = [v if r.choosing is None else r.choosing for r, v in zip(contestant.repeats, values, strict=True)]
    index = min(range(len(values)), key=lambda i: objective.sort_key(chosen_by[i]))
    chosen = contestant.repeats[index]
    repeat = None if chosen.of_search else index
    return Champion(contestant.trial, values[index], chosen.metrics, contestant.params, chosen.run_id, repeat)


def front(records: Sequence[TrialRecord], objectives: Sequence[Objective], constraints: Constraints) -> list[int]:
    """Numbers of the trials on the Pareto front."""
    points = {
        r.number: [o.sort_key(value_of(r.result, o.metric)) for o in objectives]
        for r in ranked(records, objectives[0], constraints)
        if r.result
    }
    return pareto_front(points)
