"""Accuracy and F1 from per-row results: (true label, predicted label, loss)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def classification_metrics(rows: npt.NDArray[np.float64], labels: Sequence[str]) -> dict[str, float]:
    """Accuracy with its standard error, F1 and mean loss of `rows`, shape [rows, 3]; `labels` name the classes.

    A label neither seen nor predicted is left out of the macro mean.
    """
    confusion = np.zeros((len(labels),) * 2, dtype=np.int64)
    np.add.at(confusion, (rows[:, 0].astype(int), rows[:, 1].astype(int)), 1)
    hits = np.diag(confusion).astype(float)
    support, chosen = confusion.sum(axis=1), confusion.sum(axis=0)
    count = max(1, len(rows))
    denominator = support + chosen
    f1 = np.divide(2 * hits, denominator, out=np.zeros_like(hits), where=denominator > 0)
    present = denominator > 0
    accuracy = float(hits.sum() / count)
    return {
        "f1_macro": float(f1[present].mean()) if present.any() else 0.0,
        "f1_micro": accuracy,
        "f1_weighted": float((f1 * support).sum() / count),
        "accuracy": accuracy,
        "accuracy_stderr": float(np.sqrt(accuracy * (1 - accuracy) / count)),
        "loss": float(rows[:, 2].sum() / count),
        **{f"f1/{name}": float(value) for name, value in zip(labels, f1, strict=True)},
    }
