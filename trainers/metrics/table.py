"""Per-row results of each task, and the metrics computed from them. numpy only: `hpo` uses it to resample rows.

Per-row results are stored (a few numbers per row), so that two models can be compared on the same rows later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trainers.metrics.classification import classification_metrics, multi_label_metrics
from trainers.metrics.entities import entity_metrics
from trainers.metrics.generated import COLUMNS, generated_metrics
from trainers.metrics.names import needs_generation, own_name
from trainers.metrics.perplexity import perplexity_metrics
from trainers.metrics.regression import regression_metrics

Rows = npt.NDArray[np.float64]
"""Per-row results, shape [rows, columns]."""


@dataclass(frozen=True)
class RowResults:
    """A task's per-row results: their columns, the metrics of many rows, and one loss per row (lower is better)."""

    columns: tuple[str, ...]
    metrics: Callable[[Rows, Sequence[str]], dict[str, float]]
    losses: Callable[[Rows], npt.NDArray[np.float64]]
    per_label: tuple[str, ...] = ()
    """Further columns, each repeated for every label."""
    label_columns: tuple[str, ...] = ()
    """Columns that contain the number of a label."""

    def width(self, labels: Sequence[str]) -> int:
        """The number of columns for these labels."""
        return len(self.columns) + len(self.per_label) * len(labels)

    def by_name(self, row: Rows, labels: Sequence[str]) -> dict[str, Any]:
        """The result of one row by column name, with labels as text and a mapping for each column per label."""
        named: dict[str, Any] = dict(zip(self.columns, row.tolist(), strict=False))
        named |= {name: labels[int(named[name])] for name in self.label_columns}
        for number, name in enumerate(self.per_label):
            start = len(self.columns) + number * len(labels)
            named[name] = dict(zip(labels, row[start : start + len(labels)].tolist(), strict=True))
        return named


def _mean_per_token(rows: Rows) -> npt.NDArray[np.float64]:
    return rows[:, 0] / np.maximum(rows[:, 1], 1)


_NEXT_TOKEN = RowResults(("nll", "tokens", "hits", "bytes"), perplexity_metrics, _mean_per_token)

_VALUES = RowResults(("value", "predicted"), regression_metrics, lambda rows: (rows[:, 0] - rows[:, 1]) ** 2)

ROW_RESULTS: Mapping[str, RowResults] = {
    "text-classification": RowResults(
        ("label", "predicted", "loss"),
        classification_metrics,
        lambda rows: rows[:, 2].copy(),
        ("probability",),
        ("label", "predicted"),
    ),
    "multi-label-classification": RowResults(
        ("loss",), multi_label_metrics, lambda rows: rows[:, 0].copy(), ("label", "probability")
    ),
    "regression": _VALUES,
    "text-similarity": _VALUES,
    "token-classification": RowResults(
        ("loss", "words", "hits", "right", "predicted", "true"),
        entity_metrics,
        _mean_per_token,
        ("tag_hits", "tag_predicted", "tag_true"),
    ),
    "causal-lm": _NEXT_TOKEN,
    "instruct": _NEXT_TOKEN,
    "chat": _NEXT_TOKEN,
    "text-to-text": _NEXT_TOKEN,
}


def row_results(task: str, further: Sequence[str] = ()) -> RowResults:
    """A task's per-row results, with columns for the sweep's `further` metrics.

    These are the columns of generated text, and one for each of the user's own metrics (`FILE.py:FUNCTION`), which is
    the mean over rows.
    """
    base = ROW_RESULTS[task]
    generated = COLUMNS if needs_generation(further) else ()
    own = tuple(own_name(metric) for metric in further if ":" in metric)

    def metrics(rows: Rows, labels: Sequence[str]) -> dict[str, float]:
        width = base.width(labels)
        found = base.metrics(rows[:, :width], labels)
        if generated:
            found |= generated_metrics(rows[:, width : width + len(generated)])
        for name, values in zip(own, rows[:, width + len(generated) :].T, strict=True):
            found[name] = float(values.mean())
            if len(values) > 1:
                found[f"{name}_stderr"] = float(values.std(ddof=1) / np.sqrt(len(values)))
        return found

    return replace(base, metrics=metrics)
