"""What is compared of two models row by row: a score of each row that means what the metric means, as bets need it.

A share of right answers is a mean over rows; F1, a correlation or a perplexity is none. So each metric has a score of
one row that stands for it:

- shares (right or not, the F1 of one row): differences lie between -1 and 1, and the claim is exactly about their mean.
  For metrics in which each label counts the same (macro means, MCC, ROC-AUC), so do a label's rows together: rows have
  weights, of which the largest is 1, from the shares of labels in the rows that choose.
- losses and errors have no bound. The unit is a difference that 1 of 100 choosing rows exceeds; a row's gain counts up
  to one unit, and its loss up to four. So gains are cut sooner than losses: what is claimed holds for the mean itself
  unless single rows are worse by more than four units. Whoever certifies asks the metric itself too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpo.results.statistics import Units
from trainers.metrics.table import Rows

Array = npt.NDArray[np.float64]

EACH_LABEL_ALIKE = ("f1_macro", "precision_macro", "recall_macro", "mcc", "roc_auc")
"""Metrics that a frequent label does not decide alone."""
BEYOND_UNIT = 0.01
"""The share of choosing rows whose difference exceeds the unit."""
MOST_LOST = 4
"""Units."""


@dataclass(frozen=True)
class Paired:
    """Two models on the same rows: new minus old, [rows], from -1 to 1, positive where the new one is better."""

    choosing: Array
    certifying: Array
    about: str
    """What a claim on them is about, for people."""


@dataclass(frozen=True)
class _RowScore:
    about: str
    of: Callable[[Rows, int], Array]
    """Of per-row results with so many labels, [rows]: higher is better."""
    is_share: bool = True


def paired(
    task: str, metric: str, choosing: tuple[Rows, Rows], certifying: tuple[Rows, Rows],
    labels: tuple[Sequence[str], Sequence[str]], max_drop: float = 0.0,
) -> Paired:  # fmt: skip
    """The differences of two models' per-row results, (old, new), each [rows, columns] with the label names of its own
    numbers.

    Weights and units come from the rows that choose alone. With `max_drop` the new model is credited with this share of
    the old one's mean score: the claim is then that it is not worse by more.
    """
    score, count = _score_of(task, metric), len(choosing[1])
    old, new = (np.concatenate(rows) for rows in zip(choosing, certifying, strict=True))
    first, second = (score.of(rows, len(names)) for rows, names in zip((old, new), labels, strict=True))
    weights, about = np.ones(len(new)), score.about
    if task == "text-classification" and metric in EACH_LABEL_ALIKE:
        weights, about = _label_weights(new[:, 0].astype(int), count), f"{score.about}, each label counted alike"
    margin = max_drop * abs(float(np.mean((weights * first)[:count]))) if count else 0.0
    gained = weights * (second - first) + margin
    if score.is_share:
        gained /= 1 + margin
    else:
        unit = float(np.quantile(np.abs(gained[:count]), 1 - BEYOND_UNIT)) if count else 0.0
        gained = np.clip(gained / (MOST_LOST * (unit or 1.0)), -1.0, 1 / MOST_LOST)
    return Paired(gained[:count], gained[count:], about)


def one_row_each(old: Rows, new: Rows, units: Units | None) -> tuple[Rows, Rows]:
    """The results of two models with one row for each unit: bets need rows that are independent.

    Only conversations have several rows, and the columns of their tasks are sums.
    """
    if units is None:
        return old, new

    def summed(rows: Rows) -> Rows:
        sums = np.zeros((int(units.max()) + 1, rows.shape[1]))
        np.add.at(sums, units, rows)
        return sums

    return summed(old), summed(new)


def _label_weights(label: npt.NDArray[np.int64], choosing: int) -> Array:
    """A weight for each row with which all labels count the same: 1 for the rarest one of the choosing rows, which come
    first, and for one that none of them has."""
    counts = np.maximum(np.bincount(label[:choosing], minlength=int(label.max(initial=0)) + 1), 1)
    rarest = counts[label[:choosing]].min(initial=len(label))
    found: Array = np.minimum(rarest / counts, 1.0)[label]
    return found


def _score_of(task: str, metric: str) -> _RowScore:
    if task in ("regression", "text-similarity"):
        return _ABSOLUTE if metric == "mae" else _SQUARED
    if task == "text-classification":
        return _LOSS_OF_ROW[task] if metric == "loss" else _RIGHT
    if task == "multi-label-classification":
        return _LOSS_OF_ROW[task] if metric == "loss" else _ALL_RIGHT if metric == "accuracy" else _F1_OF_LABELS
    if task == "token-classification":
        return _LOSS_OF_ROW[task] if metric == "loss" else _WORDS if metric == "token_accuracy" else _F1_OF_ENTITIES
    return _TOKENS if metric == "token_accuracy" else _LIKELIHOOD


def _f1(hits: Array, predicted: Array, true: Array) -> Array:
    """F1 of each row; a row with nothing to find and nothing found is right."""
    both = predicted + true
    shares: Array = np.where(both > 0, 2 * hits / np.maximum(both, 1), 1.0)
    return shares


def _labels(rows: Rows, count: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(true, predicted) of multi-label rows, each [rows, labels]."""
    return rows[:, 1 : 1 + count] > 0.5, rows[:, 1 + count : 1 + 2 * count] > 0.5


def _f1_of_labels(rows: Rows, count: int) -> Array:
    true, predicted = _labels(rows, count)
    return _f1(*(found.sum(axis=1).astype(float) for found in (true & predicted, predicted, true)))


def _all_right(rows: Rows, count: int) -> Array:
    true, predicted = _labels(rows, count)
    right: Array = (true == predicted).all(axis=1).astype(float)
    return right


_RIGHT = _RowScore("the share of right rows", lambda rows, _: (rows[:, 0] == rows[:, 1]).astype(float))
_ALL_RIGHT = _RowScore("the share of rows with all labels right", _all_right)
_F1_OF_LABELS = _RowScore("the mean F1 of a row's labels", _f1_of_labels)
_WORDS = _RowScore("the mean share of right words of a row", lambda rows, _: rows[:, 2] / np.maximum(rows[:, 1], 1))
_F1_OF_ENTITIES = _RowScore("the mean F1 of a row's entities", lambda rows, _: _f1(*rows[:, 3:6].T))
_SQUARED = _RowScore("the mean squared error", lambda rows, _: -((rows[:, 0] - rows[:, 1]) ** 2), is_share=False)
_ABSOLUTE = _RowScore("the mean absolute error", lambda rows, _: -np.abs(rows[:, 0] - rows[:, 1]), is_share=False)
_LIKELIHOOD = _RowScore("the negative log-likelihood of a row", lambda rows, _: -rows[:, 0], is_share=False)
_TOKENS = _RowScore("the right tokens of a row", lambda rows, _: rows[:, 2], is_share=False)
_LOSS_OF_ROW = {
    "text-classification": _RowScore("the mean loss of a row", lambda rows, _: -rows[:, 2], is_share=False),
    "multi-label-classification": _RowScore("the mean loss of a row", lambda rows, _: -rows[:, 0], is_share=False),
    "token-classification": _RowScore("the summed loss of a row's words", lambda rows, _: -rows[:, 0], is_share=False),
}
