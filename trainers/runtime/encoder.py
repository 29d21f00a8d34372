"""Releases that read a whole text at once: its tokens in, logits or a vector out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .card import ReleaseError
from .inputs import read_input
from .release import Input, Release, unknown_inputs
from .scores import Floats

_INPUTS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""Inputs that a graph may have, each with the attribute of an encoding that fills it."""

# Padding is wasted work, and activations that do not fit the cache cost more than batching gains: with more tokens
# than this a batch was slower per text than one text at a time (MiniLM, 2 cores).
_TOKENS_PER_BATCH = 512


class Reading(NamedTuple):
    """An input as tokens."""

    given: Any
    """What the answer is made of besides logits."""
    encodings: Sequence[Any]
    """Of its text, or of each text of a pair that is read apart."""

    @property
    def tokens(self) -> int:
        """How many tokens it has."""
        return sum(len(encoding.ids) for encoding in self.encodings)


class Encoder(Release):
    """What classifiers of texts and of words, and embeddings, have in common."""

    output = "logits"
    """The name of the graph's output."""

    @property
    def width(self) -> int | None:
        """The size of the output's last axis; None where it may have any."""
        return max(1, len(self.card.labels))

    @property
    def tokens_per_batch(self) -> int:
        """The most padded tokens of a batch; 0 where each text is a batch by itself.

        A dynamically quantized graph scales activations over the whole batch, so that a text's neighbours would change
        its numbers: there each text is alone.
        """
        return 0 if self.card.variant == "int8" else _TOKENS_PER_BATCH

    def read(self, inputs: Sequence[Input]) -> list[Reading]:
        """Inputs (see `predict`) as tokens, for `answered`. Raises `ValueError` for what the task does not accept."""
        return self._readings(
            [read_input(given, f"input {index}", self.card.task) for index, given in enumerate(inputs)]
        )

    @abstractmethod
    def _readings(self, inputs: Sequence[Any]) -> list[Reading]:
        """Inputs with valid texts as tokens. Raises `ValueError` for what the task does not accept."""

    def answered(self, batch: Sequence[Reading]) -> list[dict[str, Any]]:
        """The answers to a batch, in one call of the graph where texts share a batch; least is padded where the lengths
        are alike."""
        if len(batch) > 1 and not self.tokens_per_batch:
            return [answer for reading in batch for answer in self.answered([reading])]
        rows = iter(self.output_of([encoding for reading in batch for encoding in reading.encodings]))
        return [self.answer(reading, [next(rows) for _ in reading.encodings]) for reading in batch]

    @abstractmethod
    def answer(self, reading: Reading, outputs: Sequence[Floats]) -> dict[str, Any]:
        """The answer to an input, made of the graph's output for each of its encodings; the ends may be padding."""

    def output_of(self, encodings: Sequence[Any]) -> Floats:
        """The graph's output for texts, float32 [texts, ...]: in one call where texts share a batch.

        Raises `ReleaseError` where it is not of the card's width: only the weights of an adapter show that.
        """
        calls = [encodings] if self.tokens_per_batch else [[encoding] for encoding in encodings]
        found: list[Floats] = [self.session.run([self.output], self.padded(call))[0] for call in calls]
        if self.width is not None and found[0].shape[-1] != self.width:
            raise ReleaseError(
                f"its weights give {found[0].shape[-1]} numbers; expected {self.width}, as of its labels"
            )
        return np.concatenate(found)

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
        if self.output not in outputs:
            return f"has no output '{self.output}', only {', '.join(outputs)}"
        if self.width is not None and outputs[self.output][-1] != self.width:
            return f"gives {self.output} of shape {outputs[self.output]}, but there are {len(self.card.labels)} labels"
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
