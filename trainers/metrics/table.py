"""What each task measures on a row, and how the metrics follow from it. numpy only: `hpo` resamples with it too.

Per-row results are kept (three numbers a row), so that two models can be compared on the same rows afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainers.metrics.classification import classification_metrics
from trainers.metrics.perplexity import perplexity_metrics

Rows = npt.NDArray[np.float64]
"""Per-row results, shape [rows, columns]."""


@dataclass(frozen=True)
class RowResults:
    """The columns of a row's result, the metrics of many rows, and one loss per row (lower is better)."""

    columns: tuple[str, ...]
    metrics: Callable[[Rows, Sequence[str]], dict[str, float]]
    losses: Callable[[Rows], npt.NDArray[np.float64]]


def _mean_per_token(rows: Rows) -> npt.NDArray[np.float64]:
    return rows[:, 0] / np.maximum(rows[:, 1], 1)


ROW_RESULTS: Mapping[str, RowResults] = {
    "text-classification": RowResults(
        ("label", "predicted", "loss"), classification_metrics, lambda rows: rows[:, 2].copy()
    ),
    "chat": RowResults(("nll", "tokens", "hits"), perplexity_metrics, _mean_per_token),
}
