"""Errors and correlations from per-row results: (true value, predicted value)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def regression_metrics(rows: npt.NDArray[np.float64], labels: Sequence[str] = ()) -> dict[str, float]:
    """Mean squared error (the loss), its root, mean absolute error, R squared, Pearson's and Spearman's correlation.

    `rows` has the shape [rows, 2]. A correlation with values that do not vary is 0.
    """
    true, predicted = rows.T
    squared = float(((true - predicted) ** 2).mean())
    spread = float(((true - true.mean()) ** 2).mean())
    return {
        "pearson": _pearson(true, predicted),
        "spearman": _pearson(_ranks(true), _ranks(predicted)),
        "r2": 1 - squared / spread if spread else 0.0,
        "mae": float(np.abs(true - predicted).mean()),
        "rmse": squared**0.5,
        "loss": squared,
    }


def _pearson(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / scale) if scale else 0.0


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks from 1; equal values all get their mean rank."""
    ordered = np.sort(values)
    low = np.searchsorted(ordered, values, side="left")
    high = np.searchsorted(ordered, values, side="right")
    return (low + high + 1) / 2
