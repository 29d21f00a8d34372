"""Multi-label classification: any number of labels for a text or a pair of texts, each decided for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from trainers.losses import Loss
from trainers.metrics.table import Rows
from trainers.sources import Row
from trainers.spec import Finding
from trainers.splits import Keyed
from trainers.tasks import columns as read
from trainers.tasks.base import Batch, Sums
from trainers.tasks.heads import SequenceHead, Texts, encode_texts, row_logits, texts_with
from trainers.tasks.label_names import in_order
from trainers.tokens import Encoded


@dataclass(frozen=True)
class Example:
    texts: Texts
    labels: tuple[str, ...]


def label_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Of each row, the mean over its labels: [rows]."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)


class MultiLabel(SequenceHead):
    name = "multi-label-classification"
    loss: Loss = staticmethod(label_losses)

    def check(self, row: Row, columns: Mapping[str, str]) -> Keyed[Example] | Finding:
        found = texts_with(row, columns, "labels", _labels)
        if isinstance(found, Finding):
            return found
        example = Example(*found)
        # Spread evenly by the first label: all combinations would be too many strata.
        return Keyed(example, key=example.texts.key, stratum=example.labels[:1])

    def check_all(self, train: Sequence[Keyed[Example]], where: str) -> list[Finding]:
        if not any(row.example.labels for row in train):
            return [Finding(where, "no row has a label", "expected at least one label")]
        return []

    def labels(self, examples: Sequence[Example]) -> list[str]:
        return in_order(label for example in examples for label in example.labels)

    def encode(
        self, tokenizer: Any, examples: Sequence[Example], labels: Sequence[str], max_length: int
    ) -> list[list[Encoded]]:
        targets = [[int(label in e.labels) for label in labels] for e in examples]
        return encode_texts(tokenizer, [e.texts for e in examples], targets, max_length)

    def measure_row(self, example: Example, encoded: Encoded, labels: Sequence[str]) -> dict[str, Any]:
        return {**example.texts.as_row(), "labels": list(encoded.targets)}

    def sums(self, model: torch.nn.Module, batch: Batch, loss: Loss) -> Sums:
        return Sums(loss(row_logits(model, batch), batch.targets.float()).sum(), len(batch.targets))

    def score(self, model: torch.nn.Module, batch: Batch) -> Rows:
        logits, targets = row_logits(model, batch), batch.targets.float()
        losses = label_losses(logits, targets)
        rows: Rows = torch.cat([losses[:, None], targets, logits.sigmoid()], dim=1).double().cpu().numpy()
        return rows


def _labels(value: object, where: str, name: str) -> tuple[str, ...] | Finding:
    """A list of labels, or texts between commas as a table has them; none at all is an answer too."""
    given = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not isinstance(given, list):
        return Finding(where, f"{name} is {value!r}", "expected a list of labels, or labels between commas")
    found = [read.as_label(part, where, name) for part in given]
    wrong = next((part for part in found if isinstance(part, Finding)), None)
    return wrong or tuple(sorted({str(part) for part in found}))
