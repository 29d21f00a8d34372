"""Scores of a model that always gives the same answer: a model that is not better has learned nothing. numpy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from trainers.metrics.entities import has_entities

Rows = npt.NDArray[np.float64]

ANSWERS: Mapping[str, str] = {
    "text-classification": "the most frequent label",
    "multi-label-classification": "the most frequent labels",
    "regression": "the mean of the values",
    "text-similarity": "the mean of the values",
    "token-classification": "the most frequent tag",
}
"""Task -> the constant answer, for people."""


def constant_rows(task: str, rows: Rows, labels: Sequence[str]) -> Rows | None:
    """Per-row results (see `trainers/metrics/table.py`) of the constant answer; `rows` are a model's, for the truth.

    None where the task has no constant answer, as generative tasks.
    """
    answer = _ANSWERS.get(task)
    return None if answer is None or not len(rows) else answer(rows, labels)


def _value(rows: Rows, labels: Sequence[str]) -> Rows:
    true = rows[:, 0]
    return np.stack([true, np.full(len(true), true.mean())], axis=1)


def _class(rows: Rows, labels: Sequence[str]) -> Rows:
    """The most frequent label; the probabilities are the labels' shares."""
    true = rows[:, 0].astype(int)
    shares = np.bincount(true, minlength=len(labels)) / len(true)
    columns = np.stack([true, np.full(len(true), shares.argmax()), -np.log(shares[true])], axis=1)
    return np.concatenate([columns, np.tile(shares, (len(true), 1))], axis=1)


def _labels(rows: Rows, labels: Sequence[str]) -> Rows:
    """The labels that more than half of the rows have, or the most frequent one; the loss is that of the shares."""
    true = rows[:, 1 : 1 + len(labels)]
    shares = true.mean(axis=0)
    with np.errstate(divide="ignore"):
        losses = -np.log(np.where(true > 0, shares, 1 - shares)).mean(axis=1)
    answered = shares.copy()
    if not (answered > 0.5).any():
        answered[answered.argmax()] = np.nextafter(0.5, 1)
    return np.concatenate([losses[:, None], true, np.tile(answered, (len(true), 1))], axis=1)


def _tag(rows: Rows, labels: Sequence[str]) -> Rows:
    """The most frequent tag for every word, and no entity; the loss is that of the tags' shares."""
    width, words = len(labels), rows[:, 1]
    true = rows[:, -width:]
    shares = true.sum(axis=0) / max(1.0, true.sum())
    most = int(shares.argmax())
    logs = np.log(shares, out=np.zeros(width), where=shares > 0)
    hits, predicted = np.zeros_like(true), np.zeros_like(true)
    hits[:, most], predicted[:, most] = true[:, most], words
    found = [np.zeros_like(words)] * 2 if has_entities(labels) else [true[:, most], words]
    return np.column_stack(
        [-(true * logs).sum(axis=1), words, true[:, most], *found, rows[:, 5], hits, predicted, true]
    )


_ANSWERS: Mapping[str, Callable[[Rows, Sequence[str]], Rows]] = {
    "text-classification": _class,
    "multi-label-classification": _labels,
    "regression": _value,
    "text-similarity": _value,
    "token-classification": _tag,
}
