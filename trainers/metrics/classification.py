"""Accuracy and F1 from a confusion matrix, filled batch by batch: memory does not grow with the rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


class Classification:
    """Counts (true label, predicted label) pairs; `labels` name the per-class numbers."""

    def __init__(self, labels: int | Sequence[str]) -> None:
        self._names = [str(i) for i in range(labels)] if isinstance(labels, int) else list(labels)
        self.confusion: npt.NDArray[np.int64] = np.zeros((len(self._names),) * 2, dtype=np.int64)
        self._loss_sum = 0.0

    def update(
        self, predicted: npt.NDArray[np.integer], labels: npt.NDArray[np.integer], loss_sum: float = 0.0
    ) -> None:
        """Add a batch: `predicted` and `labels` are label indices, shape [rows]."""
        np.add.at(self.confusion, (labels, predicted), 1)
        self._loss_sum += loss_sum

    def results(self) -> dict[str, float]:
        """Accuracy, its standard error, and F1; a label neither seen nor predicted is left out of the mean."""
        hits = np.diag(self.confusion).astype(float)
        support = self.confusion.sum(axis=1)
        chosen = self.confusion.sum(axis=0)
        rows = max(1, int(self.confusion.sum()))
        denominator = support + chosen
        f1 = np.divide(2 * hits, denominator, out=np.zeros_like(hits), where=denominator > 0)
        present = denominator > 0
        accuracy = float(hits.sum() / rows)
        return {
            "f1_macro": float(f1[present].mean()) if present.any() else 0.0,
            "f1_micro": accuracy,
            "f1_weighted": float((f1 * support).sum() / rows),
            "accuracy": accuracy,
            "accuracy_stderr": float(np.sqrt(accuracy * (1 - accuracy) / rows)),
            "loss": self._loss_sum / rows,
            **{f"f1/{name}": float(value) for name, value in zip(self._names, f1, strict=True)},
        }
