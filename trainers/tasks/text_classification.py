"""Text classification: one label for a text or a pair of texts, from a head on any model."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainers.data.formats.base import cut
from trainers.data.sources import Row
from trainers.data.splits import Keyed
from trainers.data.tokens import Encoded
from trainers.metrics.table import Rows
from trainers.protocol.events import Finding
from trainers.protocol.trial_spec import DataRef
from trainers.tasks import columns as read
from trainers.tasks.base import Batch, Settled, Sums
from trainers.tasks.class_names import ClassNames
from trainers.tasks.heads import SequenceHead, Texts, encode_texts, row_logits, texts_with
from trainers.tasks.label_names import in_order
from trainers.tasks.losses import Loss, cross_entropy


@dataclass(frozen=True)
class Example:
    """A row's texts and label."""

    texts: Texts
    label: str


class TextClassification(SequenceHead):
    """One label for each row."""

    name = "text-classification"
    loss: Loss = staticmethod(cross_entropy)

    def check(self, row: Row, columns: Mapping[str, str]) -> Keyed[Example] | Finding:
        found = texts_with(row, columns, "label", read.as_label)
        if isinstance(found, Finding):
            return found
        example = Example(*found)
        return Keyed(example, key=example.texts.key, stratum=example.label)

    def settle(self, train: Sequence[Keyed[Example]], data: DataRef) -> Settled:
        """Replace numbers of classes by their names in `data.label_names`."""
        classes = ClassNames(tuple(data.label_names))

        def settled(row: Keyed[Example], where: str) -> Keyed[Example] | Finding:
            name = classes.name(row.example.label)
            if name is None:
                return Finding(where, f"has the label {cut(row.example.label)!r}", classes.expected)
            return Keyed(Example(row.example.texts, name), row.key, stratum=name)

        return Settled(settled)

    def check_all(self, train: Sequence[Keyed[Example]], where: str) -> list[Finding]:
        found = sorted({row.example.label for row in train})
        if len(found) < 2:
            return [Finding(where, f"all rows have the label {cut(found[0])!r}", "expected at least two labels")]
        return []

    def answer(self, example: Example) -> Hashable:
        return example.label

    def labels(self, examples: Sequence[Example]) -> list[str]:
        return in_order(example.label for example in examples)

    def encode(
        self, tokenizer: Any, examples: Sequence[Example], labels: Sequence[str], max_length: int
    ) -> list[list[Encoded]]:
        index = {label: i for i, label in enumerate(labels)}
        return encode_texts(tokenizer, [e.texts for e in examples], [[index[e.label]] for e in examples], max_length)

    def measure_row(self, example: Example, encoded: Encoded, labels: Sequence[str]) -> dict[str, Any]:
        return {**example.texts.as_row(), "label": encoded.targets[0]}

    def sums(self, model: torch.nn.Module, batch: Batch, loss: Loss) -> Sums:
        return Sums(loss(row_logits(model, batch), batch.targets[:, 0].long()).sum(), len(batch.targets))

    def score(self, model: torch.nn.Module, batch: Batch) -> Rows:
        logits, targets = row_logits(model, batch), batch.targets[:, 0].long()
        losses = cross_entropy(logits, targets)
        columns = torch.stack([targets.double(), logits.argmax(dim=-1).double(), losses.double()], dim=1)
        rows: Rows = torch.cat([columns, logits.softmax(dim=-1).double()], dim=1).cpu().numpy()
        return rows
