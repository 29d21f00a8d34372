"""What the difference between two evaluations may be wrong by, from their results on the same rows."""

from __future__ import annotations

import math
from collections.abc import Callable

from hpo.config.sweep_config import SweepConfig
from hpo.pruning.base import Look
from hpo.results.gaps import Scores, gap, scores
from trainers.metrics.table import Rows, row_results


class RowErrors:
    """Standard errors of differences in the metric that the pruner looks at; the rows of each evaluation are read once.

    `rows_of` reads per-row results, [rows, columns], and raises `FileNotFoundError` where none were kept.
    """

    def __init__(self, config: SweepConfig, labels: list[str], rows_of: Callable[[Look], Rows]) -> None:
        self._metrics = row_results(config.task, config.metrics).metrics
        self._metric = config.pruner.objective.metric
        self._labels = labels
        self._rows_of = rows_of
        self._kept: dict[Look, tuple[int, Scores]] = {}

    def __call__(self, first: Look, second: Look) -> float | None:
        """None where the two have not the same rows, or where the error is no number."""
        one, other = self._scores(first), self._scores(second)
        if one is None or other is None or one[0] != other[0]:
            return None
        error = math.sqrt(gap([one[1]], [other[1]], None).row_variance)
        return error if math.isfinite(error) else None

    def _scores(self, look: Look) -> tuple[int, Scores] | None:
        """Number of rows, and the metric with and without each group of them; None where no rows were kept."""
        if look not in self._kept:
            try:
                rows = self._rows_of(look)
            except FileNotFoundError:
                return None  # not remembered: the rows of a trial under way come before its verdict
            self._kept[look] = (len(rows), scores(rows, self._value))
        return self._kept[look]

    def _value(self, rows: Rows) -> float:
        return self._metrics(rows, self._labels)[self._metric]
