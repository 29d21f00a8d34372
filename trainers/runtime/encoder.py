"""Releases that read a whole text at once: its tokens in, logits or a vector out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .inputs import read_input
from .release import Input, Release, unknown_inputs

_INPUTS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""Inputs that a graph may have, each with the attribute of an encoding that fills it."""


class Reading(NamedTuple):
    """An input as tokens."""

    given: Any
    """What the answer is made of besides logits."""
    encoding: Any

    @property
    def tokens(self) -> int:
        """How many tokens it has."""
        return len(self.encoding.ids)


class Encoder(Release):
    """What classifiers of texts and of words have in common."""

    @property
    def tokens_per_batch(self) -> int:
        """The most padded tokens of a batch; 0 where each text is a batch by itself."""
        return 0

    def read(self, inputs: Sequence[Input]) -> list[Reading]:
        """Inputs (see `predict`) as tokens, for `answered`. Raises `ValueError` for what the task does not accept."""
        return self._readings(
            [read_input(given, f"input {index}", self.card.task) for index, given in enumerate(inputs)]
        )

    @abstractmethod
    def _readings(self, inputs: Sequence[Any]) -> list[Reading]:
        """Inputs with valid texts as tokens. Raises `ValueError` for what the task does not accept."""

    @abstractmethod
    def answered(self, batch: Sequence[Reading]) -> list[dict[str, Any]]:
        """The answers to a batch, in one call of the graph; least is padded where the lengths are alike."""

    @cached_property
    def _names(self) -> list[str]:
        return [value.name for value in self.session.get_inputs()]

    def padded(self, encodings: Sequence[Any]) -> dict[str, npt.NDArray[np.int64]]:
        """The graph's inputs, each int64 [texts, longest]."""
        width = max(1, *(len(encoding.ids) for encoding in encodings))
        feed = {}
        for name in self._names:
            padding = self.card.pad_token_id if name == "input_ids" else 0
            feed[name] = np.full((len(encodings), width), padding, dtype=np.int64)
            for row, encoding in zip(feed[name], encodings, strict=True):
                values = getattr(encoding, _INPUTS[name])
                row[: len(values)] = values
        return feed

    def misfit(self) -> str | None:
        outputs = {value.name: value.shape for value in self.session.get_outputs()}
        if "logits" not in outputs:
            return f"has no output 'logits', only {', '.join(outputs)}"
        if outputs["logits"][-1] != max(1, len(self.card.labels)):
            return f"gives logits of shape {outputs['logits']}, but there are {len(self.card.labels)} labels"
        return unknown_inputs([name for name in self._names if name not in _INPUTS])


def batches(order: Sequence[int], length: Callable[[int], int], limit: int) -> Iterator[list[int]]:
    """Cut `order` (ascending lengths) into batches of at most `limit` padded tokens, or of one text."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * length(index) > limit:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
