"""Classification metrics from per-row results: (true label, predicted label, loss, probability of each label)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def classification_metrics(rows: Array, labels: Sequence[str]) -> dict[str, float]:
    """Accuracy with its standard error, precision, recall and F1, Matthews' correlation, ROC-AUC and mean loss.

    `rows` has the shape [rows, 3 + labels]; `labels` are the names of the classes. Macro means leave out a label that
    is neither true nor predicted for any row. ROC-AUC is one-vs-rest: the mean over the labels that some rows have and
    others do not have.
    """
    true, predicted = rows[:, 0].astype(int), rows[:, 1].astype(int)
    hits = np.bincount(true[true == predicted], minlength=len(labels)).astype(float)
    support, chosen = (np.bincount(found, minlength=len(labels)) for found in (true, predicted))
    count = max(1, len(rows))
    precision, recall, f1 = _shares(hits, chosen), _shares(hits, support), _shares(2 * hits, support + chosen)
    present = support + chosen > 0
    accuracy = float(hits.sum() / count)
    return {
        "f1_macro": _mean(f1[present]),
        "f1_micro": accuracy,
        "f1_weighted": float((f1 * support).sum() / count),
        "accuracy": accuracy,
        "accuracy_stderr": float(np.sqrt(accuracy * (1 - accuracy) / count)),
        "precision_macro": _mean(precision[present]),
        "recall_macro": _mean(recall[present]),
        "mcc": matthews(float(hits.sum()), support, chosen),
        "roc_auc": _mean([a for i in range(len(labels)) if (a := roc_auc(true == i, rows[:, 3 + i])) is not None]),
        "loss": float(rows[:, 2].sum() / count),
        **{f"f1/{name}": float(value) for name, value in zip(labels, f1, strict=True)},
    }


def multi_label_metrics(rows: Array, labels: Sequence[str]) -> dict[str, float]:
    """The metrics of `classification_metrics` (without Matthews' correlation) for rows with any number of labels.

    `rows` has the shape [rows, 1 + 2 * labels]: the loss, then each label's truth (0 or 1), then each label's
    probability. A label is predicted above a probability of one half. `accuracy` is the share of rows with all labels
    right.
    """
    width = len(labels)
    true, probability = rows[:, 1 : 1 + width] > 0.5, rows[:, 1 + width :]
    predicted = probability > 0.5
    hits = (true & predicted).sum(axis=0).astype(float)
    support, chosen = true.sum(axis=0), predicted.sum(axis=0)
    f1 = _shares(2 * hits, support + chosen)
    present = support + chosen > 0
    accuracy = float((true == predicted).all(axis=1).mean())
    return {
        "f1_macro": _mean(f1[present]),
        "f1_micro": float(_shares(2 * hits.sum(), (support + chosen).sum())),
        "f1_weighted": float((f1 * support).sum() / max(1, support.sum())),
        "accuracy": accuracy,
        "accuracy_stderr": float(np.sqrt(accuracy * (1 - accuracy) / max(1, len(rows)))),
        "precision_macro": _mean(_shares(hits, chosen)[present]),
        "recall_macro": _mean(_shares(hits, support)[present]),
        "roc_auc": _mean([a for i in range(width) if (a := roc_auc(true[:, i], probability[:, i])) is not None]),
        "loss": float(rows[:, 0].mean()),
        **{f"f1/{name}": float(value) for name, value in zip(labels, f1, strict=True)},
    }


def confusion_matrix(rows: Array, width: int) -> npt.NDArray[np.int64]:
    """How often each label (first axis) is predicted as each label (second axis): int64 [width, width]."""
    confusion = np.zeros((width, width), dtype=np.int64)
    np.add.at(confusion, (rows[:, 0].astype(int), rows[:, 1].astype(int)), 1)
    return confusion


def matthews(right: float, support: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]) -> float:
    """Matthews' correlation for any number of classes (Gorodkin 2004); 0 where all rows have one class.

    `right` is the number of correct rows; `support` and `chosen` are how often each class is true and predicted.
    """
    true, predicted, total = support.astype(float), chosen.astype(float), float(support.sum())
    scale = np.sqrt((total**2 - (predicted**2).sum()) * (total**2 - (true**2).sum()))
    return float((right * total - (true * predicted).sum()) / scale) if scale else 0.0


def roc_auc(true: npt.NDArray[np.bool_], score: Array) -> float | None:
    """The probability that a row with the label has a higher score than one without it; a tie counts as one half.

    None unless there are rows of both kinds.
    """
    positive, negative = np.sort(score[true]), np.sort(score[~true])
    if not len(positive) or not len(negative):
        return None
    below = np.searchsorted(negative, positive, side="left").sum()
    equal = np.searchsorted(negative, positive, side="right").sum() - below
    return float((below + equal / 2) / (len(positive) * len(negative)))


def _shares(part: npt.NDArray[np.float64], whole: npt.NDArray[np.int64]) -> Array:
    """Elementwise quotients, 0 where the denominator is 0."""
    shares: Array = np.divide(part, whole, out=np.zeros_like(part, dtype=float), where=np.asarray(whole) > 0)
    return shares


def _mean(values: Array | Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
