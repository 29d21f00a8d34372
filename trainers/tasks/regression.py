"""Regression: a number for a text or a pair of texts (a rating, a similarity)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trainers.data.sources import Row
from trainers.data.splits import Keyed
from trainers.data.tokens import Encoded
from trainers.metrics.table import Rows
from trainers.protocol.events import Finding, Scale
from trainers.tasks import columns as read
from trainers.tasks.base import Batch, Sums
from trainers.tasks.heads import SequenceHead, Texts, encode_texts, row_logits, texts_with
from trainers.tasks.losses import Loss
from trainers.tasks.output_layer import output_layer
from trainers.tasks.units import convert, fold, scale_of, set_scale

LARGEST = 1e30
"""The square of a larger value does not fit float32, in any unit."""


@dataclass(frozen=True)
class Example:
    """A row's texts and value."""

    texts: Texts
    value: float


def squared_errors(predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """The squared errors of predicted and true values, both [rows]: [rows]."""
    return (predicted - true) ** 2


class Regression(SequenceHead):
    """One value for each row, learned in standard deviations from the training mean and predicted in the data's unit.

    A new head predicts values near 0, so this gives ratings and prices the same start.
    """

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
        if len(found) == 1:
            return [Finding(where, f"all values are {found.pop():g}", "values that differ")]
        most = max(found, key=abs)
        return [Finding(where, f"has the value {most:g}", f"values up to {LARGEST:g}")] if abs(most) > LARGEST else []

    def answer(self, example: Example) -> Hashable:
        return example.value

    def labels(self, examples: Sequence[Example]) -> list[str]:
        return []

    def scale(self, train: Sequence[Example]) -> Scale | None:
        values = np.array([example.value for example in train])
        if np.abs(values).max() > LARGEST or not values.std():  # there is a finding about it
            return None
        return Scale(float(values.mean()), float(values.std()))

    def encode(
        self, tokenizer: Any, examples: Sequence[Example], labels: Sequence[str], max_length: int
    ) -> list[list[Encoded]]:
        return encode_texts(tokenizer, [e.texts for e in examples], [[e.value] for e in examples], max_length)

    def measure_row(self, example: Example, encoded: Encoded, labels: Sequence[str]) -> dict[str, Any]:
        return {**example.texts.as_row(), "value": example.value}

    def rescale(self, model: torch.nn.Module, scale: Scale, held: Scale | None) -> None:
        if held is None:
            set_scale(model, scale)
        else:
            convert(model, model.get_submodule(output_layer(model, 1)), held, scale)

    def fold_scale(self, model: torch.nn.Module) -> None:
        fold(model, model.get_submodule(output_layer(model, 1)))

    def sums(self, model: torch.nn.Module, batch: Batch, loss: Loss) -> Sums:
        scale = scale_of(model)
        wanted = ((batch.targets[:, 0].double() - scale.mean) / scale.std).float()
        return Sums(loss(row_logits(model, batch)[:, 0], wanted).sum(), len(batch.targets))

    def score(self, model: torch.nn.Module, batch: Batch) -> Rows:
        scale = scale_of(model)
        predicted = row_logits(model, batch)[:, 0].double() * scale.std + scale.mean
        rows: Rows = torch.stack([batch.targets[:, 0].double(), predicted], dim=1).cpu().numpy()
        return rows


def _number(value: object, where: str, name: str) -> float | Finding:
    """A finite number, also from text; or the finding why it is not one."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # the except is for it
    except (TypeError, ValueError, OverflowError):  # the last one: an integer of hundreds of digits
        number = math.nan
    return number if math.isfinite(number) else Finding(where, f"{name} is {read.shown(value)}", "expected a number")
