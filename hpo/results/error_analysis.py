"""What a model gets wrong, from its per-row results: the worst rows, and which label is taken for which. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainers.metrics.classification import confusion_matrix
from trainers.metrics.table import ROW_RESULTS, Rows

WORST = 20
"""Rows that are shown."""
MOST_LABELS = 1000
"""Of a confusion matrix, whose size is their square."""


@dataclass(frozen=True)
class Confusion:
    """How often a row of one label was given another one."""

    labels: list[str]
    counts: list[list[int]]
    """[true][predicted]"""


def confusion(task: str, rows: Rows, labels: Sequence[str]) -> Confusion | None:
    """None for a task whose rows have not one label each, and for more labels than a person can look at."""
    if task != "text-classification" or len(labels) > MOST_LABELS:
        return None
    return Confusion(list(labels), confusion_matrix(rows, len(labels)).tolist())


def worst_rows(task: str, rows: Rows, count: int = WORST) -> list[int]:
    """The rows with the highest loss, highest first; a loss that is no number is the worst of all."""
    losses = np.nan_to_num(ROW_RESULTS[task].losses(rows), nan=math.inf)
    return [int(row) for row in np.argsort(-losses, kind="stable")[:count]]


def example(
    task: str, inputs: Mapping[str, Any], row: npt.NDArray[np.float64], labels: Sequence[str]
) -> dict[str, Any]:
    """One validation row as a person reads it: the input, its loss, and the true and the predicted answer.

    `inputs` is the row as the tokens' folder has it, `row` its results (`trainers/metrics/table.py`). The answers are
    there where the results tell them; a loss that is no number is null.
    """
    loss = float(ROW_RESULTS[task].losses(row[None])[0])
    shown = {"loss": loss if math.isfinite(loss) else None}
    if task not in _ANSWERS:
        return {**inputs, **shown}
    column, answers = _ANSWERS[task]
    true, predicted = answers(row, labels)
    return {**{n: v for n, v in inputs.items() if n != column}, **shown, "true": true, "predicted": predicted}


def _label(row: npt.NDArray[np.float64], labels: Sequence[str]) -> tuple[str, str]:
    return labels[int(row[0])], labels[int(row[1])]


def _labels(row: npt.NDArray[np.float64], labels: Sequence[str]) -> tuple[list[str], list[str]]:
    width = len(labels)
    true, probability = row[1 : 1 + width], row[1 + width :]
    return (
        [name for name, value in zip(labels, true, strict=True) if value > 0.5],
        [name for name, value in zip(labels, probability, strict=True) if value > 0.5],
    )


def _value(row: npt.NDArray[np.float64], labels: Sequence[str]) -> tuple[float, float]:
    return float(row[0]), float(row[1])


_ANSWERS: Mapping[str, tuple[str, Callable[[npt.NDArray[np.float64], Sequence[str]], tuple[Any, Any]]]] = {
    "text-classification": ("label", _label),
    "multi-label-classification": ("labels", _labels),
    "regression": ("value", _value),
    "text-similarity": ("value", _value),
}
"""Task -> the input's column that the true answer takes the place of, and (true, predicted) from a row's results."""
