"""Similarity of two texts by their embeddings (a bi-encoder): the model reads each text separately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from trainers.data.sources import Row
from trainers.data.splits import Keyed
from trainers.data.tokens import Encoded
from trainers.metrics.table import Rows
from trainers.protocol.events import Finding, Scale
from trainers.tasks.base import Batch, Sums
from trainers.tasks.losses import Loss
from trainers.tasks.regression import Example, Regression


class TextSimilarity(Regression):
    """The cosine of two texts' embeddings, the means of their last hidden states (Reimers and Gurevych 2019)."""

    name = "text-similarity"
    limit = "half of max_length"

    def check(self, row: Row, columns: Mapping[str, str]) -> Keyed[Example] | Finding:
        found = super().check(row, columns)
        if isinstance(found, Finding) or 0 <= found.example.value <= 1:
            return found
        return Finding(row.where, f"{columns['value']} is {found.example.value:g}", "expected a similarity from 0 to 1")

    def encode(
        self, tokenizer: Any, examples: Sequence[Example], labels: Sequence[str], max_length: int
    ) -> list[list[Encoded]]:
        """Both texts in one row of tokens, each cut to half of `max_length`; `types` says which text each is from."""

        def ids_of(texts: list[str | None]) -> list[list[int]]:
            how = {"truncation": True, "max_length": max_length // 2, "split_special_tokens": True}
            ids: list[list[int]] = tokenizer(texts, **how)["input_ids"]
            return ids

        pairs = zip(
            ids_of([e.texts.text for e in examples]), ids_of([e.texts.pair for e in examples]), examples, strict=True
        )
        return [[Encoded(a + b, [e.value], [0] * len(a) + [1] * len(b))] for a, b, e in pairs]

    def lengths(self, one: Encoded, max_length: int) -> list[tuple[int, int]]:
        return [((one.types or []).count(side), max_length // 2) for side in (0, 1)]

    def load_model(self, source: str, labels: Sequence[str], **options: Any) -> tuple[torch.nn.Module, list[str]]:
        from transformers import AutoModel

        model, info = AutoModel.from_pretrained(source, output_loading_info=True, **options)
        return model, sorted(info["missing_keys"])

    def scale(self, train: Sequence[Example]) -> Scale | None:
        return None

    def fold_scale(self, model: torch.nn.Module) -> None:
        return

    def head_notes(self, config: Any, labels: Sequence[str]) -> list[str]:
        return []

    def head_parameters(self, model: torch.nn.Module) -> list[str]:
        return []

    def compared(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return cosines(model, batch)[:, None]

    def sums(self, model: torch.nn.Module, batch: Batch, loss: Loss) -> Sums:
        return Sums(loss(cosines(model, batch), batch.targets[:, 0].float()).sum(), len(batch.targets))

    def score(self, model: torch.nn.Module, batch: Batch) -> Rows:
        rows: Rows = torch.stack([batch.targets[:, 0].double(), cosines(model, batch).double()], dim=1).cpu().numpy()
        return rows


def cosines(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The cosine of each row's two embeddings, float32 [rows]; all texts go through the model in one batch."""
    assert batch.types is not None  # noqa: S101  # `encode` always sets types
    is_token = batch.attention_mask.bool()
    sides = [is_token & (batch.types == side) for side in (0, 1)]
    texts = [ids[mine] for side in sides for ids, mine in zip(batch.input_ids, side, strict=True)]
    pad = torch.nn.utils.rnn.pad_sequence
    mask = pad([torch.ones_like(text) for text in texts], batch_first=True)
    first, second = embeddings(model, pad(texts, batch_first=True), mask).chunk(2)
    return (first * second).sum(dim=1)


def embeddings(model: torch.nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """The mean of each text's last hidden states, as a vector of length 1: float32 [texts, size]."""
    hidden = model(input_ids=input_ids, attention_mask=attention_mask)[0].float()
    means = (hidden * attention_mask[..., None]).sum(dim=1) / attention_mask.sum(dim=1, keepdim=True).clamp(min=1)
    return F.normalize(means, dim=1)
