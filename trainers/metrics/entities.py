"""Entity F1, tag accuracy and F1 of each tag from per-row results.

The columns are loss, words, hits, correct entities, predicted and true ones, then for each tag its hits, and how often
it is predicted and true.

Plain tags (parts of speech) form no entities: there each word counts as one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
_COLUMNS = 6


def entity_counts(
    rows: Numbers, true: Numbers, predicted: Numbers, losses: npt.NDArray[np.float64], labels: Sequence[str], count: int
) -> npt.NDArray[np.float64]:
    """Per-row results, float64 [count, 6 + 3 * labels], from words in the order of their rows.

    `rows`, `true`, `predicted` and `losses` have one element per word: its row, true tag, predicted tag and loss.
    """
    is_hit = true == predicted
    words, hits = np.bincount(rows, minlength=count), np.bincount(rows[is_hit], minlength=count)
    right, found, wanted = hits, words, words
    if has_entities(labels):
        right, found, wanted = _entities(rows, true, predicted, labels, count).T
    totals = [np.bincount(rows, losses, minlength=count), words, hits, right, found, wanted]
    return np.column_stack([
        *totals,
        _per_tag(rows[is_hit], true[is_hit], len(labels), count),
        _per_tag(rows, predicted, len(labels), count),
        _per_tag(rows, true, len(labels), count),
    ]).astype(float)  # fmt: skip


def has_entities(labels: Sequence[str]) -> bool:
    """Whether the tags mark entities in IOB2: `O`, `B-...` and `I-...` only."""
    return all(label == "O" or label[:2] in ("B-", "I-") for label in labels)


def entity_metrics(rows: npt.NDArray[np.float64], labels: Sequence[str] = ()) -> dict[str, float]:
    """F1, precision and recall over whole entities (as in CoNLL), the share of correct tags, and the F1 of each tag.

    `rows` has the shape [rows, 6 + 3 * labels]. The mean over tags leaves out a tag that is neither true nor predicted.
    """
    sums = rows.sum(axis=0)
    loss, words, hits, right, predicted, true = sums[:_COLUMNS]
    tag_hits, tag_predicted, tag_true = sums[_COLUMNS : _COLUMNS + 3 * len(labels)].reshape(3, -1)
    seen = tag_predicted + tag_true
    f1 = np.divide(2 * tag_hits, seen, out=np.zeros(len(labels)), where=seen > 0)
    return {
        "entity_f1": _share(2 * right, predicted + true),
        "entity_precision": _share(right, predicted),
        "entity_recall": _share(right, true),
        "token_accuracy": _share(hits, words),
        "f1_macro": float(f1[seen > 0].mean()) if (seen > 0).any() else 0.0,
        "loss": _share(loss, words),
        **{f"f1/{name}": float(value) for name, value in zip(labels, f1, strict=True)},
    }


def _entities(rows: Numbers, true: Numbers, predicted: Numbers, labels: Sequence[str], count: int) -> Numbers:
    """The number of correct, predicted and true entities of each row, [count, 3]."""
    from seqeval.metrics.sequence_labeling import get_entities

    counts = np.zeros((count, 3), dtype=np.int64)
    ends = np.searchsorted(rows, np.arange(count + 1))
    for row, (start, end) in enumerate(itertools.pairwise(ends)):
        wanted = set(get_entities([labels[i] for i in true[start:end]]))
        found = set(get_entities([labels[i] for i in predicted[start:end]]))
        counts[row] = len(wanted & found), len(found), len(wanted)
    return counts


def _per_tag(rows: Numbers, tags: Numbers, width: int, count: int) -> Numbers:
    """How often each row has each tag, [count, width]."""
    return np.bincount(rows * width + tags, minlength=count * width).reshape(count, width)


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
