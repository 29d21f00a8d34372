"""How near a variant is to torch: the largest difference of logits, and how many answers are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trainers.metrics.table import Rows
from trainers.protocol.measured import Agreement

_NUMBERS = ("regression", "text-similarity")
"""Tasks whose answers are numbers, which are never quite the same."""


def max_logit_diff(ours: npt.NDArray[Any], expected: npt.NDArray[Any], task: str) -> float:
    """The largest difference from torch's logits; values of a regression have a unit, and are divided by the largest.

    Raises `ValueError` for another shape.
    """
    if ours.shape != expected.shape:  # numpy would broadcast some shapes
        raise ValueError(f"logits have shape {ours.shape}; the reference has shape {expected.shape}")
    unit = max(1.0, float(np.abs(expected).max())) if task == "regression" else 1.0
    return float(np.abs(ours - expected).max()) / unit


def agreement_of_logits(ours: npt.NDArray[Any], expected: npt.NDArray[Any], task: str) -> Agreement | None:
    """How many of the first rows (or tokens, or words' tokens) have torch's answer; logits are [rows, labels]."""
    if task in _NUMBERS:
        return None
    if task == "multi-label-classification":
        same = ((ours > 0) == (expected > 0)).all(axis=1)
    else:
        same = ours.argmax(axis=1) == expected.argmax(axis=1)
    return Agreement(int(same.sum()), len(same))


def agreement_of_rows(ours: Rows, torchs: Rows, task: str, labels: int) -> Agreement | None:
    """How many rows have torch's answer, where per-row results have answers: of classifiers of texts; else None."""
    if task == "text-classification":
        same = ours[:, 1] == torchs[:, 1]
    elif task == "multi-label-classification":
        same = ((ours[:, 1 + labels :] > 0.5) == (torchs[:, 1 + labels :] > 0.5)).all(axis=1)
    else:
        return None
    return Agreement(int(same.sum()), len(same))
