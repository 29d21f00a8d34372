"""Token classification: a tag for every word, and entities as runs of tags (IOB2).

Rows hold words and their tags, or a text and its entities as spans of characters. A word's first token carries its
tag; the others are neither learned nor judged, as in Devlin et al. (2019), section 5.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainers.losses import Loss, cross_entropy
from trainers.metrics.entities import entity_counts
from trainers.metrics.table import Rows
from trainers.sources import Row
from trainers.spec import Finding
from trainers.splits import Keyed
from trainers.tasks import columns as read
from trainers.tasks.base import Batch, Sums, Task
from trainers.tasks.heads import load_with_head
from trainers.tasks.spans import words_and_tags
from trainers.tokens import Encoded, TargetKind, Tokens


@dataclass(frozen=True)
class Sentence:
    words: tuple[str, ...]
    tags: tuple[str, ...]


class TokenClassification(Task):
    name = "token-classification"
    targets: TargetKind = "token"
    loss: Loss = staticmethod(cross_entropy)

    def check(self, row: Row, columns: Mapping[str, str]) -> Keyed[Sentence] | Finding:
        found = _spans(row, columns) if columns["words"] not in row.values else _tagged_words(row, columns)
        if isinstance(found, Finding):
            return found
        kinds = {tag.partition("-")[2] for tag in found.tags} - {""}
        return Keyed(found, key=found.words, stratum=min(kinds, default=""))

    def check_all(self, train: Sequence[Keyed[Sentence]], where: str) -> list[Finding]:
        if all(tag == "O" for row in train for tag in row.example.tags):
            return [Finding(where, "no word is part of an entity", "expected tags besides O")]
        return []

    def labels(self, examples: Sequence[Sentence]) -> list[str]:
        return sorted({tag for example in examples for tag in example.tags})

    def encode(
        self, tokenizer: Any, examples: Sequence[Sentence], labels: Sequence[str], max_length: int
    ) -> list[list[Encoded]]:
        index = {tag: i for i, tag in enumerate(labels)}
        batch = tokenizer(
            [list(e.words) for e in examples], is_split_into_words=True, truncation=True, max_length=max_length,
            split_special_tokens=True,
        )  # fmt: skip
        encoded = []
        for row, example in enumerate(examples):
            words: list[int | None] = batch.word_ids(row)
            is_first = [
                word is not None and word != before for word, before in zip(words, [None, *words], strict=False)
            ]
            # Plus one: 0 is a token that nobody asks about.
            targets = [
                index[example.tags[w or 0]] + 1 if first else 0 for w, first in zip(words, is_first, strict=True)
            ]
            encoded.append([Encoded(batch["input_ids"][row], targets)] if any(targets) else [])
        return encoded

    def measure_row(self, example: Sentence, encoded: Encoded, labels: Sequence[str]) -> dict[str, Any]:
        return {"words": list(example.words), "tags": list(example.tags)}

    def load_model(self, source: str, labels: Sequence[str], **options: Any) -> tuple[torch.nn.Module, list[str]]:
        from transformers import AutoModelForTokenClassification

        return load_with_head(AutoModelForTokenClassification, source, labels, **options)

    def sums(self, model: torch.nn.Module, batch: Batch, loss: Loss) -> Sums:
        logits, targets, _ = _tag_logits(model, batch)
        return Sums(loss(logits, targets).sum(), len(targets))

    def score(self, model: torch.nn.Module, batch: Batch) -> Rows:
        logits, targets, rows = _tag_logits(model, batch)
        losses = cross_entropy(logits, targets)
        labels = [model.config.id2label[i] for i in range(logits.shape[-1])]
        return entity_counts(
            rows.cpu().numpy(), targets.cpu().numpy(), logits.argmax(dim=-1).cpu().numpy(),
            losses.double().cpu().numpy(), labels, len(batch.input_ids),
        )  # fmt: skip

    def unit_count(self, tokens: Tokens, row: int) -> int:
        return int((tokens.targets(row) > 0).sum())


def _tag_logits(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits [words, tags] in float32 of the tokens that carry a tag, their tags, and each one's row."""
    is_asked = batch.targets > 0
    logits = model(**batch.inputs).logits[is_asked].float()
    return logits, batch.targets[is_asked].long() - 1, is_asked.nonzero(as_tuple=True)[0]


def _tagged_words(row: Row, columns: Mapping[str, str]) -> Sentence | Finding:
    words, tags = _texts(row, columns, "words"), _texts(row, columns, "tags")
    if isinstance(words, Finding):
        return words
    if isinstance(tags, Finding):
        return tags
    if len(words) != len(tags):
        return Finding(row.where, f"has {len(words)} words and {len(tags)} tags", "one tag for each word")
    wrong = next((tag for tag in tags if tag != "O" and (tag[:2] not in ("B-", "I-") or len(tag) < 3)), None)
    if wrong is not None:
        return Finding(row.where, f"has the tag {wrong!r}", "expected O, B-NAME or I-NAME")
    return Sentence(words, tags)


def _texts(row: Row, columns: Mapping[str, str], role: str) -> tuple[str, ...] | Finding:
    value = read.column(row, columns, role)
    if isinstance(value, Finding):
        return value
    if not isinstance(value, list) or not value or not all(isinstance(part, str) and part for part in value):
        return Finding(row.where, f"{columns[role]} is {value!r:.60}", "expected a list of texts, one for each word")
    return tuple(value)


def _spans(row: Row, columns: Mapping[str, str]) -> Sentence | Finding:
    """`text` with `entities`: [{"start": 0, "end": 5, "label": "NAME"}, ...], in characters."""
    text = read.text(row, columns)
    if isinstance(text, Finding):
        has = ", ".join(row.values) or "nothing"
        expected = f"words and tags, or a text with its entities; the row has: {has}"
        return Finding(row.where, f"has no column {columns['words']!r} for data.words", expected)
    entities = read.column(row, columns, "entities")
    if isinstance(entities, Finding):
        return entities
    tagged = words_and_tags(text, entities)
    if isinstance(tagged, str):
        return Finding(row.where, tagged, 'expected [{"start": 0, "end": 5, "label": "NAME"}, ...]')
    return Sentence(*tagged)
