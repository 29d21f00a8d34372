"""Regression: a number for a text or a pair of texts (a rating, a similarity)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainers.losses import Loss
from trainers.metrics.table import Rows
from trainers.sources import Row
from trainers.spec import Finding
from trainers.splits import Keyed
from trainers.tasks.base import Batch, Sums
from trainers.tasks.heads import SequenceHead, Texts, encode_texts, row_logits, texts_with
from trainers.tokens import Encoded


@dataclass(frozen=True)
class Example:
    texts: Texts
    value: float


def squared_errors(predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Of values [rows] each."""
    return (predicted - true) ** 2


class Regression(SequenceHead):
    name = "regression"
    loss: Loss = staticmethod(squared_errors)

    def check(self, row: Row, columns: Mapping[str, str]) -> Keyed[Example] | Finding:
        found = texts_with(row, columns, "value", _number)
        if isinstance(found, Finding):
            return found
        example = Example(*found)
        return Keyed(example, key=example.texts.key, stratum=None)

    def check_all(self, train: Sequence[Keyed[Example]], where: str) -> list[Finding]:
        found = {row.example.value for row in train}
        return [Finding(where, f"all values are {found.pop():g}", "values that differ")] if len(found) == 1 else []

    def labels(self, examples: Sequence[Example]) -> list[str]:
        return []

    def encode(
        self, tokenizer: Any, examples: Sequence[Example], labels: Sequence[str], max_length: int
    ) -> list[list[Encoded]]:
        return encode_texts(tokenizer, [e.texts for e in examples], [[e.value] for e in examples], max_length)

    def measure_row(self, example: Example, encoded: Encoded, labels: Sequence[str]) -> dict[str, Any]:
        return {**example.texts.as_row(), "value": example.value}

    def sums(self, model: torch.nn.Module, batch: Batch, loss: Loss) -> Sums:
        return Sums(loss(row_logits(model, batch)[:, 0], batch.targets[:, 0].float()).sum(), len(batch.targets))

    def score(self, model: torch.nn.Module, batch: Batch) -> Rows:
        predicted = row_logits(model, batch)[:, 0]
        rows: Rows = torch.stack([batch.targets[:, 0].double(), predicted.double()], dim=1).cpu().numpy()
        return rows


def _number(value: object, where: str, name: str) -> float | Finding:
    """A finite number, or text that reads as one."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # the except is for it
    except (TypeError, ValueError):
        number = math.nan
    return number if math.isfinite(number) else Finding(where, f"{name} is {value!r}", "expected a number")
