"""Entity F1 and tag accuracy from per-row results: (loss, words, hits, entities found right, predicted, true)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def entity_counts(
    rows: npt.NDArray[np.int64], true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64],
    losses: npt.NDArray[np.float64], labels: Sequence[str], count: int,
) -> npt.NDArray[np.float64]:  # fmt: skip
    """Per-row results [count, 6] from words in order: the row, the true and the predicted tag of each, its loss."""
    from seqeval.metrics.sequence_labeling import get_entities

    results = np.zeros((count, 6))
    for row in range(count):
        mine = rows == row
        wanted = set(get_entities([labels[i] for i in true[mine]]))
        found = set(get_entities([labels[i] for i in predicted[mine]]))
        hits = (true[mine] == predicted[mine]).sum()
        results[row] = losses[mine].sum(), mine.sum(), hits, len(wanted & found), len(found), len(wanted)
    return results


def entity_metrics(rows: npt.NDArray[np.float64], labels: Sequence[str] = ()) -> dict[str, float]:
    """F1, precision and recall over whole entities (as CoNLL counts them), and the share of words tagged right."""
    loss, words, hits, right, predicted, true = rows.sum(axis=0)
    return {
        "entity_f1": _share(2 * right, predicted + true),
        "entity_precision": _share(right, predicted),
        "entity_recall": _share(right, true),
        "token_accuracy": _share(hits, words),
        "loss": _share(loss, words),
    }


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
