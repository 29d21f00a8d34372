"""The interface of tasks: what each file of this folder implements."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from trainers.data.sources import Row
from trainers.data.splits import Keyed
from trainers.data.tokens import Encoded, TargetKind, Tokens
from trainers.metrics.table import Rows
from trainers.protocol.events import Finding, Scale
from trainers.protocol.trial_spec import DataRef
from trainers.tasks.losses import Loss


@dataclass(frozen=True)
class Batch:
    """One micro-batch on its device, padded on the right, or packed into one row."""

    input_ids: torch.Tensor
    """[rows, tokens]"""
    attention_mask: torch.Tensor
    """[rows, tokens], 1 where there is a token"""
    targets: torch.Tensor
    """[rows, most targets of a row], as `TargetKind` says"""
    types: torch.Tensor | None
    """[rows, tokens], which of two texts a token belongs to; None for models without this input"""
    target_bytes: torch.Tensor
    """[rows]"""
    positions: torch.Tensor | None = None
    """[1, tokens], for rows that are packed into one sequence: a row starts where they are 0"""

    def to(self, device: torch.device) -> Batch:
        """The same on a device; the numbers of bytes stay where they are."""
        return Batch(
            self.input_ids.to(device), self.attention_mask.to(device), self.targets.to(device),
            None if self.types is None else self.types.to(device), self.target_bytes,
            None if self.positions is None else self.positions.to(device),
        )  # fmt: skip

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """The arguments of the model's forward pass."""
        if self.positions is not None:  # with a mask transformers would not see that there are several rows
            return {"input_ids": self.input_ids, "position_ids": self.positions}
        given = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        return given if self.types is None else {**given, "token_type_ids": self.types}

    @property
    def tokens(self) -> int:
        """The number of tokens without padding."""
        return int(self.attention_mask.sum())


@dataclass(frozen=True)
class Sums:
    """The sums of a forward pass: `loss` (a scalar) over `units` (rows, or target tokens)."""

    loss: torch.Tensor
    units: int


Made = list[Encoded] | Finding
"""The rows of tokens of an example (none where nothing is left to learn), or the finding why it has none."""


@dataclass(frozen=True)
class Settled:
    """How to read rows, decided from all training rows together."""

    read: Callable[[Keyed[Any], str], Keyed[Any] | Finding] = lambda row, where: row
    """(row as `check` returns it, its place) -> the row, or the finding why it is invalid."""
    notes: list[str] = field(default_factory=list)
    """How rows are read, where that is not obvious."""


class Task(Protocol):
    """The part of preparation and training that depends on the task.

    Losses are sums, not means: micro-batches of any size then add up to the same step.
    """

    name: str
    targets: TargetKind
    loss: Loss
    """The loss that training minimizes unless the settings name another one."""
    limit: str = "max_length"
    """The longest text of a row, in words before the number of `max_length`."""

    def check(self, row: Row, columns: Mapping[str, str]) -> Keyed[Any] | Finding:
        """A row as an example, or the finding why it is invalid."""
        ...

    def settle(self, train: Sequence[Keyed[Any]], data: DataRef) -> Settled:
        """Decide from all training rows how the rows of all splits are read: lists of 0 and 1, or schemes of tags."""
        return Settled()

    def check_all(self, train: Sequence[Keyed[Any]], where: str) -> list[Finding]:
        """Findings about all training rows together, such as a single class."""
        ...

    def input_of(self, row: Keyed[Any]) -> Hashable:
        """What a row gives the model before the answer, as a text or texts in tuples; None for running text.

        Nights never have rows with equal inputs on two sides, whatever their answers are; a sweep notes such rows.
        """
        return row.key

    def answer(self, example: Any) -> Hashable:
        """The answer to learn for an example; None for a task that learns the input itself."""
        return None

    def labels(self, examples: Sequence[Any]) -> list[str]:
        """The sorted labels for the model's head; empty for a task without labels."""
        ...

    def notes(self, train: Sequence[Any]) -> list[str]:
        """Notes on how the training examples were read, where that is not obvious."""
        return []

    def scale(self, train: Sequence[Any]) -> Scale | None:
        """The unit in which values are learned; None for a task without values."""
        return None

    def head_notes(self, config: Any, labels: Sequence[str]) -> list[str]:
        """Notes on what happens to the head of a checkpoint with this config."""
        return []

    def at(self, clock: str) -> Task:
        """The task at a time (local ISO time, empty for now), for templates that print the date."""
        return self

    def tokenizer_notes(self, tokenizer: Any) -> list[str]:
        """Notes on how the tokenizer is used, where that is not obvious."""
        return []

    def encode(self, tokenizer: Any, examples: Sequence[Any], labels: Sequence[str], max_length: int) -> Sequence[Made]:
        """Tokenize examples and cut them to `max_length` tokens.

        Each example gives one row of tokens, or none where nothing is left to learn, or the finding why it cannot be
        tokenized. For text in blocks it gives the blocks that end in it. Raises `DataProblem` when tokenizer and task
        do not fit, for example without a chat template.
        """
        ...

    def lengths(self, one: Encoded, max_length: int) -> list[tuple[int, int]]:
        """Of each text of a row: its tokens, and how many of them `max_length` leaves. Empty where no text is cut."""
        return [(len(one.ids), max_length)]

    def measure_row(self, example: Any, encoded: Encoded, labels: Sequence[str]) -> dict[str, Any]:
        """The row in JSON on which the released model is measured."""
        ...

    def load_model(self, source: str, labels: Sequence[str], **options: Any) -> tuple[torch.nn.Module, list[str]]:
        """The base model, and the names of the parameters that the checkpoint does not contain for these labels."""
        ...

    def head_parameters(self, model: torch.nn.Module) -> list[str]:
        """Names of the parameters of a head for labels or values, which is trained in full, new or not."""
        return []

    def rescale(self, model: torch.nn.Module, scale: Scale, held: Scale | None) -> None:
        """Make a model that was just loaded learn in the unit of `scale`, in place.

        `held` is the unit in which its head was trained before; None for a new head.
        """
        return

    def fold_scale(self, model: torch.nn.Module) -> None:
        """Make a plain transformers model predict values in the data's unit, in place."""
        return

    def sums(self, model: torch.nn.Module, batch: Batch, loss: Loss) -> Sums:
        """The training loss of a micro-batch, summed in float32."""
        ...

    def score(self, model: torch.nn.Module, batch: Batch) -> Rows:
        """Per-row results of a batch, [rows, columns], with the task's columns in `trainers/metrics/table.py`."""
        ...

    def compared(self, model: Any, batch: Batch) -> torch.Tensor:
        """What a release must give too: float32 logits [rows, labels] or [rows, tokens, vocabulary or tags]."""
        logits: torch.Tensor = model(**batch.inputs).logits
        return logits

    def unit_count(self, tokens: Tokens, row: int) -> int:
        """How many units `sums` counts for a row; it is known before the forward pass, to weight a step."""
        ...
