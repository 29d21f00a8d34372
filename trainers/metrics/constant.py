"""What one and the same answer to everything would score: a model that is no better has learned nothing. numpy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float64]

ANSWERS: Mapping[str, str] = {
    "text-classification": "the most frequent label",
    "multi-label-classification": "the most frequent labels",
    "regression": "the mean of the values",
    "text-similarity": "the mean of the values",
    "token-classification": "no entity",
}
"""By task, what is always answered."""


def constant_rows(task: str, rows: Rows, labels: Sequence[str]) -> Rows | None:
    """Per-row results (see `trainers/metrics/table.py`) as the constant answer would have them, from a model's own,
    which hold the truth; None where the task has no such answer, as for tasks that write."""
    answer = _ANSWERS.get(task)
    return None if answer is None or not len(rows) else answer(rows, len(labels))


def _value(rows: Rows, width: int) -> Rows:
    true = rows[:, 0]
    return np.stack([true, np.full(len(true), true.mean())], axis=1)


def _class(rows: Rows, width: int) -> Rows:
    """The most frequent label; probabilities are the labels' shares."""
    true = rows[:, 0].astype(int)
    shares = np.bincount(true, minlength=width) / len(true)
    told = np.stack([true, np.full(len(true), shares.argmax()), -np.log(shares[true])], axis=1)
    return np.concatenate([told, np.tile(shares, (len(true), 1))], axis=1)


def _labels(rows: Rows, width: int) -> Rows:
    """Every label that more than half of the rows have, else the most frequent one; the loss is that of the shares."""
    true = rows[:, 1 : 1 + width]
    shares = true.mean(axis=0)
    with np.errstate(divide="ignore"):
        losses = -np.log(np.where(true > 0, shares, 1 - shares)).mean(axis=1)
    answered = shares.copy()
    if not (answered > 0.5).any():
        answered[answered.argmax()] = np.nextafter(0.5, 1)
    return np.concatenate([losses[:, None], true, np.tile(answered, (len(true), 1))], axis=1)


def _no_entity(rows: Rows, width: int) -> Rows:
    """Nothing is found. The rows say neither how many words are outside of entities, nor what a loss would be: metrics
    of those are not a number."""
    nothing = rows.copy()
    nothing[:, [0, 2]] = np.nan
    nothing[:, [3, 4]] = 0.0
    return nothing


_ANSWERS: Mapping[str, Callable[[Rows, int], Rows]] = {
    "text-classification": _class,
    "multi-label-classification": _labels,
    "regression": _value,
    "text-similarity": _value,
    "token-classification": _no_entity,
}
