"""The seam between tasks and everything else: what one file in this folder has to say."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from trainers.data.sources import Row
from trainers.data.splits import Keyed
from trainers.data.tokens import Encoded, TargetKind, Tokens
from trainers.metrics.table import Rows
from trainers.protocol.messages import DataRef, Finding, Scale
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
    """[rows, tokens], which of two texts a token belongs to; None for models that are not told"""
    target_bytes: torch.Tensor
    """[rows]"""
    positions: torch.Tensor | None = None
    """[1, tokens], of rows that are packed into one sequence: a row begins where they are 0"""

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """What every model is given."""
        if self.positions is not None:  # a mask would hide from transformers that there are several rows
            return {"input_ids": self.input_ids, "position_ids": self.positions}
        given = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        return given if self.types is None else {**given, "token_type_ids": self.types}

    @property
    def tokens(self) -> int:
        return int(self.attention_mask.sum())


@dataclass(frozen=True)
class Sums:
    """What a forward pass adds up: `loss` summed over `units` (rows, or target tokens)."""

    loss: torch.Tensor
    units: int


Made = list[Encoded] | Finding
"""What an example becomes: rows of tokens (none where nothing is left to learn from), or why it cannot."""


@dataclass(frozen=True)
class Settled:
    """How rows are to be read, once all of the training source are known."""

    read: Callable[[Keyed[Any], str], Keyed[Any] | Finding] = lambda row, where: row
    """(row as `check` left it, where it stands) -> the row, or why it is none after all."""
    notes: list[str] = field(default_factory=list)
    """How they were read, where that is not plain to see."""


class Task(Protocol):
    """What is different about a task. Sums, not means: micro-batches of any size then add up to the same step."""

    name: str
    targets: TargetKind
    loss: Loss
    """What training minimizes where the settings name nothing else."""

    def check(self, row: Row, columns: Mapping[str, str]) -> Keyed[Any] | Finding:
        """A row as an example, or why it is none."""
        ...

    def settle(self, train: Sequence[Keyed[Any]], data: DataRef) -> Settled:
        """How the rows of all splits are to be read, which no row can know alone: lists of 0 and 1, schemes of tags."""
        return Settled()

    def check_all(self, train: Sequence[Keyed[Any]], where: str) -> list[Finding]:
        """What no row can know alone (one class only, say)."""
        ...

    def answer(self, example: Any) -> Hashable:
        """What is to be learned of an example beside its input; None where the input is all there is."""
        return None

    def labels(self, examples: Sequence[Any]) -> list[str]:
        """The sorted labels that a head needs; empty for other tasks."""
        ...

    def notes(self, train: Sequence[Any]) -> list[str]:
        """How the training examples were read, where that is not plain to see."""
        return []

    def scale(self, train: Sequence[Any]) -> Scale | None:
        """The unit in which numbers are learned; None for tasks that learn none."""
        return None

    def head_notes(self, config: Any, labels: Sequence[str]) -> list[str]:
        """What becomes of the head that a checkpoint with this config brings."""
        return []

    def at(self, clock: str) -> Task:
        """The task at a time (local ISO time, now where it is empty), for templates that print it."""
        return self

    def tokenizer_notes(self, tokenizer: Any) -> list[str]:
        """How the tokenizer is used, where that is not plain to see."""
        return []

    def encode(self, tokenizer: Any, examples: Sequence[Any], labels: Sequence[str], max_length: int) -> Sequence[Made]:
        """Tokenize, cut to `max_length`: one row for each example, none where nothing is left to learn from, for texts
        in blocks as many as end in it, or the finding that says why the example cannot be one.

        Raises `DataProblem` when tokenizer and task do not fit (no chat template, say).
        """
        ...

    def measure_row(self, example: Any, encoded: Encoded, labels: Sequence[str]) -> dict[str, Any]:
        """The row as the released model is measured on it."""
        ...

    def load_model(self, source: str, labels: Sequence[str], **options: Any) -> tuple[torch.nn.Module, list[str]]:
        """The base model, and the names of parameters that the checkpoint did not hold for these labels."""
        ...

    def head_parameters(self, model: torch.nn.Module) -> list[str]:
        """Names of the parameters of a head on labels or numbers, which is trained in full, new or not."""
        return []

    def rescale(self, model: torch.nn.Module, scale: Scale, held: Scale | None) -> None:
        """Make a model that was just loaded learn in the unit of `scale`, in place. `held` is the unit that its head
        has learned before; None for a head that is drawn."""
        return

    def fold_scale(self, model: torch.nn.Module) -> None:
        """Make a plain transformers model answer in the numbers' own unit, in place."""
        return

    def sums(self, model: torch.nn.Module, batch: Batch, loss: Loss) -> Sums:
        """Training loss of a micro-batch, summed in float32."""
        ...

    def score(self, model: torch.nn.Module, batch: Batch) -> Rows:
        """Per-row results of a batch, with the columns that `trainers/metrics/table.py` names for the task."""
        ...

    def unit_count(self, tokens: Tokens, row: int) -> int:
        """How many units `sums` will count for a row: known before the forward pass, so a step can be weighted."""
        ...
