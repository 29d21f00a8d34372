"""One trial as Optuna's samplers see it."""

from __future__ import annotations

import math
from typing import NamedTuple

from optuna.trial import TrialState

from hpo.config.objective import excess, value_of
from hpo.config.sweep_config import SweepConfig
from hpo.results.records import TrialRecord


class OptunaTrial(NamedTuple):
    """What a sampler learns from, besides the point and its reports."""

    state: TrialState
    values: list[float] | None
    """Of each objective; None where the trial is not complete."""
    constraints: dict[str, float]
    """By how much it exceeds each constraint; empty where it is not complete."""


def as_optuna_sees(record: TrialRecord, config: SweepConfig) -> OptunaTrial:
    """With several objectives, Optuna has no place for a pruned trial, nor for one of which a further objective is no
    number, as your own function may give it: to Optuna they have failed, and only our record says what they were.

    Raises `ValueError` for a complete trial without a value: a trainer must end it as diverged.
    """
    is_single = len(config.objectives) == 1
    if record.state == "complete" and record.result is not None:
        values = [value_of(record.result, objective.metric) for objective in config.objectives]
        if math.isnan(values[0]):
            raise ValueError(f"trial {record.number} is complete without a value: a trainer must end it as diverged")
        if is_single or all(map(math.isfinite, values)):
            return OptunaTrial(TrialState.COMPLETE, values, excess(record.result, config.constraints))
    if record.state == "running":
        return OptunaTrial(TrialState.RUNNING, None, {})
    is_pruned = record.state == "pruned" and is_single
    return OptunaTrial(TrialState.PRUNED if is_pruned else TrialState.FAIL, None, {})
