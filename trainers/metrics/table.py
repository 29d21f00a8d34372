"""What each task measures on a row, and how the metrics follow from it. numpy only: `hpo` resamples with it too.

Per-row results are kept (a few numbers a row), so that two models can be compared on the same rows afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainers.metrics.classification import classification_metrics, multi_label_metrics
from trainers.metrics.entities import entity_metrics
from trainers.metrics.perplexity import perplexity_metrics
from trainers.metrics.regression import regression_metrics

Rows = npt.NDArray[np.float64]
"""Per-row results, shape [rows, columns]."""


@dataclass(frozen=True)
class RowResults:
    """The columns of a row's result, the metrics of many rows, and one loss per row (lower is better)."""

    columns: tuple[str, ...]
    metrics: Callable[[Rows, Sequence[str]], dict[str, float]]
    losses: Callable[[Rows], npt.NDArray[np.float64]]
    per_label: tuple[str, ...] = ()
    """Further columns, each as often as there are labels."""

    def width(self, labels: Sequence[str]) -> int:
        return len(self.columns) + len(self.per_label) * len(labels)


def _mean_per_token(rows: Rows) -> npt.NDArray[np.float64]:
    return rows[:, 0] / np.maximum(rows[:, 1], 1)


_NEXT_TOKEN = RowResults(("nll", "tokens", "hits", "bytes"), perplexity_metrics, _mean_per_token)

ROW_RESULTS: Mapping[str, RowResults] = {
    "text-classification": RowResults(
        ("label", "predicted", "loss"), classification_metrics, lambda rows: rows[:, 2].copy(), ("probability",)
    ),
    "multi-label-classification": RowResults(
        ("loss",), multi_label_metrics, lambda rows: rows[:, 0].copy(), ("label", "probability")
    ),
    "regression": RowResults(("value", "predicted"), regression_metrics, lambda rows: (rows[:, 0] - rows[:, 1]) ** 2),
    "token-classification": RowResults(
        ("loss", "words", "hits", "right", "predicted", "true"), entity_metrics, _mean_per_token
    ),
    "causal-lm": _NEXT_TOKEN,
    "instruct": _NEXT_TOKEN,
    "chat": _NEXT_TOKEN,
    "text-to-text": _NEXT_TOKEN,
}
