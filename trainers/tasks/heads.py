"""The common part of tasks with a head on one or two texts: tokenizing, loading and logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from trainers.data.sources import Row
from trainers.data.tokens import Encoded, TargetKind, Tokens
from trainers.protocol.events import Finding
from trainers.tasks import columns as read
from trainers.tasks.base import Batch, Task
from trainers.tasks.output_layer import head_notes, head_parameters, load_with_head

T = TypeVar("T")
_KIND = "ForSequenceClassification"


@dataclass(frozen=True)
class Texts:
    """The input of a row: one text or a pair of texts."""

    text: str
    pair: str | None

    @property
    def key(self) -> str | tuple[str, str]:
        """Equal for rows with the same input."""
        return self.text.strip() if self.pair is None else (self.text.strip(), self.pair.strip())

    def as_row(self) -> dict[str, str]:
        """The texts by their columns, as the released model is measured on them."""
        return {"text": self.text} if self.pair is None else {"text": self.text, "text_pair": self.pair}


def texts_with(
    row: Row, columns: Mapping[str, str], role: str, read_value: Callable[[object, str, str], T | Finding]
) -> tuple[Texts, T] | Finding:
    """A row's texts, and the value of its column for `role`, read by `read_value(value, where, column)`."""
    texts, value = read.texts(row, columns), read.column(row, columns, role)
    if isinstance(texts, Finding):
        return texts
    if isinstance(value, Finding):
        return value
    answer = read_value(value, row.where, columns[role])
    return answer if isinstance(answer, Finding) else (Texts(*texts), answer)


class SequenceHead(Task):
    """A task whose head gives one vector of logits per row, [rows, labels]."""

    targets: TargetKind = "row"

    def load_model(self, source: str, labels: Sequence[str], **options: Any) -> tuple[torch.nn.Module, list[str]]:
        from transformers import AutoModelForSequenceClassification

        return load_with_head(AutoModelForSequenceClassification, source, labels, _KIND, **options)

    def head_notes(self, config: Any, labels: Sequence[str]) -> list[str]:
        return head_notes(config, labels, _KIND)

    def head_parameters(self, model: torch.nn.Module) -> list[str]:
        return head_parameters(model)

    def unit_count(self, tokens: Tokens, row: int) -> int:
        return 1


def row_logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The logits of a batch, float32 [rows, labels]."""
    logits: torch.Tensor = model(**batch.inputs).logits.float()
    return logits


def encode_texts(
    tokenizer: Any, texts: Sequence[Texts], targets: Sequence[Sequence[float]], max_length: int
) -> list[list[Encoded]]:
    """Tokenize rows and cut each to `max_length` tokens, of a pair the longer text first; "[SEP]" in a text is text."""
    pairs = [t.pair for t in texts] if any(t.pair is not None for t in texts) else None
    batch: Mapping[str, Any] = tokenizer(
        [t.text for t in texts], pairs, truncation=True, max_length=max_length, split_special_tokens=True
    )
    # Models with a segment embedding use 0 without types: that is right for one text, and wrong for two.
    types = batch.get("token_type_ids") if pairs else None
    return [
        [Encoded(ids, target, types[row] if types else None)]
        for row, (ids, target) in enumerate(zip(batch["input_ids"], targets, strict=True))
    ]
