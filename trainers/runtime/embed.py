"""Vectors for texts, and how alike two texts are: the cosine of their vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .encoder import Encoder, Reading, batches
from .inputs import parsed_json, parts_of
from .scores import Floats


class Embedder(Encoder):
    """A model of text-similarity."""

    output = "embedding"

    def _answers(self, inputs: Sequence[Any], max_new_tokens: int | None, first: int = 0) -> list[dict[str, Any]]:
        texts = [self._texts(given, f"input {index}") for index, given in enumerate(inputs, first)]
        vectors = iter(self.vectors([text for both in texts for text in both]))
        return [_answer([next(vectors) for _ in both]) for both in texts]

    def _readings(self, inputs: Sequence[Any]) -> list[Reading]:
        given = [self._texts(one, f"input {index}") for index, one in enumerate(inputs)]
        return [Reading(texts, self.tokenizer.encode_batch(texts)) for texts in given]

    def answer(self, reading: Reading, outputs: Sequence[Floats]) -> dict[str, Any]:
        return _answer(outputs)

    def vectors(self, texts: Sequence[str]) -> Floats:
        """Vectors of length 1, float32 [texts, size], in the order given.

        Texts of similar length share a batch, see `tokens_per_batch`.
        """
        encodings = self.tokenizer.encode_batch(list(texts))
        order = sorted(range(len(encodings)), key=lambda i: len(encodings[i].ids))
        found: dict[int, Floats] = {}
        for batch in batches(order, lambda i: len(encodings[i].ids), self.tokens_per_batch):
            found |= dict(zip(batch, self.output_of([encodings[i] for i in batch]), strict=True))
        return np.array([found[i] for i in range(len(encodings))], dtype=np.float32)

    def cosines(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """How alike the two texts of each pair are, from -1 to 1: float32 [pairs]."""
        first, second = self.vectors([text for side in zip(*pairs, strict=True) for text in side]).reshape(
            2, len(pairs), -1
        )
        cosines: Floats = (first * second).sum(axis=1)
        return cosines

    def _texts(self, given: object, where: str) -> list[str]:
        """One text, or the two of a pair."""
        read = parsed_json(given) if isinstance(given, str) and given.lstrip().startswith("{") else given
        if isinstance(read, Mapping) and "text_pair" in read:
            return list(parts_of(read, where, self.card).values())
        if isinstance(read, Mapping) and isinstance(read.get("text"), str):
            if not read["text"].strip():
                raise ValueError(f"{where}: is empty; expected a text of at least one token")
            return [read["text"]]
        if isinstance(given, str):
            return [given]
        raise ValueError(f"{where}: expected a text, or a mapping of text and text_pair, got {type(given).__name__}")

    @property
    def width(self) -> int | None:
        return None


def _answer(vectors: Sequence[Floats]) -> dict[str, Any]:
    if len(vectors) == 1:
        return {"embedding": vectors[0].tolist()}
    return {"value": float(vectors[0] @ vectors[1])}
