"""Multi-label classification: any number of labels for a text or a pair of texts, each predicted by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

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
from trainers.tasks.losses import Loss

MOST_TARGETS = 100_000_000
"""Targets of all training rows, a 0 or 1 for each label: 400 MB, and ten times as much while they are made."""


@dataclass(frozen=True)
class Example:
    """A row's texts and labels."""

    texts: Texts
    labels: tuple[str, ...]
    vector: tuple[int, ...] | None = None
    """The row's list, where it may have a 0 or 1 for each label."""


def label_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of logits and targets, both [rows, labels], averaged over the labels: [rows]."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)


class MultiLabel(SequenceHead):
    """Any number of labels for each row."""

    name = "multi-label-classification"
    loss: Loss = staticmethod(label_losses)

    def check(self, row: Row, columns: Mapping[str, str]) -> Keyed[Example] | Finding:
        found = texts_with(row, columns, "labels", _labels)
        return found if isinstance(found, Finding) else _keyed(Example(found[0], *found[1]))

    def settle(self, train: Sequence[Keyed[Example]], data: DataRef) -> Settled:
        """Read lists of 0 and 1 as the labels at the positions of their ones; other lists are lists of labels."""
        classes = ClassNames(tuple(data.label_names))
        length = _vector_length([row.example for row in train])
        names = classes.names or tuple(map(str, range(length or 0)))

        def settled(row: Keyed[Example], where: str) -> Keyed[Example] | Finding:
            texts, labels, vector = row.example.texts, row.example.labels, row.example.vector
            if length is not None:
                if vector is None or len(vector) != length:
                    return Finding(where, "has no list of 0 and 1, unlike the other rows", f"{length} of them")
                if len(names) != length:
                    return Finding(
                        where, f"has {length} values of 0 and 1", f"one for each of {len(names)} label_names"
                    )
                labels = tuple(name for name, has in zip(names, vector, strict=True) if has)
            named = {label: classes.name(label) for label in labels}
            if wrong := [label for label, name in named.items() if name is None]:
                return Finding(where, f"has the label {cut(wrong[0])!r}", classes.expected)
            return _keyed(Example(texts, tuple(in_order(name for name in named.values() if name is not None))))

        note = f"labels are lists of {length} values of 0 and 1: each position is a label"
        named = "named by data.label_names" if classes.names else "named by its number from 0 (or by data.label_names)"
        return Settled(settled, [f"{note}, {named}"] if length else [])

    def check_all(self, train: Sequence[Keyed[Example]], where: str) -> list[Finding]:
        found = self.labels([row.example for row in train])
        if not found:
            return [Finding(where, "no row has a label", "expected at least one label")]
        if len(found) == 1 and all(row.example.labels for row in train):
            return [Finding(where, f"all rows have only the label {cut(found[0])!r}", "rows that differ")]
        if (count := len(found) * len(train)) > MOST_TARGETS:
            what = f"{len(train):,} rows with {len(found):,} labels give {count:,} targets"
            return [Finding(where, what, f"at most {MOST_TARGETS:,}: use fewer rows or fewer labels")]
        return []

    def answer(self, example: Example) -> Hashable:
        return example.labels

    def labels(self, examples: Sequence[Example]) -> list[str]:
        return in_order(label for example in examples for label in example.labels)

    def encode(
        self, tokenizer: Any, examples: Sequence[Example], labels: Sequence[str], max_length: int
    ) -> list[list[Encoded]]:
        index = {label: i for i, label in enumerate(labels)}
        targets = [[0] * len(labels) for _ in examples]
        for row, example in zip(targets, examples, strict=True):
            for label in example.labels:
                row[index[label]] = 1
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


def _keyed(example: Example) -> Keyed[Example]:
    """The row with its first label as stratum: combinations of labels would be too many strata."""
    return Keyed(example, key=example.texts.key, stratum=example.labels[:1])


def _labels(value: object, where: str, name: str) -> tuple[tuple[str, ...], tuple[int, ...] | None] | Finding:
    """Labels from a list, or from a table's text separated by commas, and the list itself where it has only 0 and 1.

    No label at all is valid too.
    """
    given = read.listed(value)
    given = [part for part in given.split(",") if part.strip()] if isinstance(given, str) else given
    if not isinstance(given, list):
        expected = "expected a list of labels, or labels separated by commas"
        return Finding(where, f"{name} is {read.shown(value)}", expected)
    found = [read.as_label(part, where, name) for part in given]
    wrong = next((part for part in found if isinstance(part, Finding)), None)
    is_vector = len(given) > 1 and all(isinstance(part, (int, float)) and part in (0, 1) for part in given)
    return wrong or (tuple(in_order(map(str, found))), tuple(map(int, given)) if is_vector else None)


def _vector_length(train: Sequence[Example]) -> int | None:
    """The number of labels where lists have a 0 or 1 for each label; None where they are lists of labels.

    A list of labels has each label once, so a list that repeats 0 or 1 is a vector. For two values (`[0, 1]`) only all
    rows together can show it.
    """
    vectors = [example.vector for example in train if example.vector is not None]
    lengths = Counter(map(len, vectors))
    is_sure = any(len(vector) > len(set(vector)) for vector in vectors)
    if not vectors or not (is_sure or (len(vectors) == len(train) and len(lengths) == 1)):
        return None
    return lengths.most_common(1)[0][0]
