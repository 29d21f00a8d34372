"""What a model of the objective learns from: the points that were tried, and what came of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from hpo.config.objective import excess, value_of
from hpo.config.space import Point
from hpo.config.sweep_config import SweepConfig
from hpo.results.records import RETRIED, TrialRecord

Tried = tuple[Point, Sequence[float], Mapping[str, float]]
"""A point, its objective values, and by how much it exceeds each constraint (at most 0 where it keeps it)."""


def points_tried(records: Collection[TrialRecord], config: SweepConfig) -> list[Tried]:
    """Nothing before a trial is complete.

    A pruned trial counts with the value that it was pruned at: without it, the model would go on proposing where
    pruning stops everything. With several objectives, for a point that cannot be trained, and where a value is no
    number, the worst values seen stand in; for a trial under way the mean, so that it is not proposed again.
    """
    if not any(record.state == "complete" for record in records):
        return []
    known: list[Tried] = []
    unknown, running = list[Point](), list[Point]()
    for record in records:
        result = record.result
        if record.is_duplicate or (result and result.cause in RETRIED):
            continue
        if result is None:
            running.append(record.params)
            continue
        has_values = result.state == "complete" or (result.state == "pruned" and len(config.objectives) == 1)
        values = [value_of(result, objective.metric) if has_values else math.nan for objective in config.objectives]
        if all(map(math.isfinite, values)):
            known.append((record.params, values, excess(result, config.constraints)))
        else:
            unknown.append(record.params)
    if not known:
        return []
    columns = list(zip(*(values for _, values, _ in known), strict=True))
    worst = [max(column, key=o.sort_key) for column, o in zip(columns, config.objectives, strict=True)]
    mean = [sum(column) / len(column) for column in columns]
    kept = dict.fromkeys(config.constraints, 0.0)
    return known + [(point, worst, kept) for point in unknown] + [(point, mean, kept) for point in running]
