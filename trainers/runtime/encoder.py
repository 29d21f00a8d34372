"""Releases that read a whole text at once: its tokens in, logits or a vector out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .release import Release, unknown_inputs

_INPUTS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""Inputs that a graph may have, each with the attribute of an encoding that fills it."""


class Encoder(Release):
    """What classifiers of texts and of words, and embeddings, have in common."""

    output = "logits"
    """The name of the graph's output."""

    @property
    def _width(self) -> int | None:
        """The size of the output's last axis; None where it may have any."""
        return max(1, len(self.card.labels))

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
        if self._width is not None and outputs[self.output][-1] != self._width:
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
