"""Texts written from texts by an encoder-decoder: summaries, translations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from .cache import PAST, AppendedCache
from .card import Card
from .inputs import parts_of
from .release import Release, unknown_inputs
from .scores import Floats
from .write import SequenceScore, score

if TYPE_CHECKING:
    import onnxruntime as ort

MASK, CROSS = "encoder_attention_mask", "cross."
"""The decoder's inputs that come from the encoder: its mask, and keys and values of the text."""


class Rewriter(Release):
    """A model of text-to-text: `encoder` reads the text once, and the graph writes the answer with a cache."""

    def __init__(
        self, card: Card, tokenizer: Tokenizer, session: ort.InferenceSession, encoder: ort.InferenceSession
    ) -> None:
        super().__init__(card, tokenizer, session)
        self.encoder = encoder

    def _answers(self, inputs: Sequence[Any], max_new_tokens: int | None) -> list[dict[str, Any]]:
        texts = [parts_of(given, f"input {n}", self.card)[self.card.columns[0]] for n, given in enumerate(inputs)]
        return [{"text": self.tokenizer.decode(list(self.generate(text, max_new_tokens)))} for text in texts]

    def generate(self, text: str, max_new_tokens: int | None = None) -> Iterator[int]:
        """Yield the answer's token ids one by one, decoded greedily, up to but without an end-of-text token."""
        for token in self.greedy_tokens(text, self.answer_length(max_new_tokens)):
            if token in self.card.eos_token_ids:
                return
            yield token

    def greedy_tokens(self, text: str, count: int) -> Iterator[int]:
        """Yield `count` tokens, each the most likely one after those before it; an end-of-text token ends nothing."""
        forced = {0: self.card.forced_tokens.get("first"), count - 1: self.card.forced_tokens.get("last")}
        cache, token = self._read(text), self._start
        for place in range(count):
            (logits,) = cache.feed([token])
            wanted = forced.get(place)
            token = int(logits[-1].argmax()) if wanted is None else wanted
            yield token

    def answer_length(self, wanted: int | None) -> int:
        """The answer's length in tokens: at most that of a text, as in training. Raises `ValueError` below 1."""
        wanted = self.card.generation["max_new_tokens"] if wanted is None else wanted
        if wanted < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {wanted}")
        return int(min(wanted, self.card.max_length))

    def target_ids(self, answer: str) -> list[int]:
        """The tokens of an answer as training has them."""
        ids: list[int] = self.tokenizer.encode(answer).ids
        return ids

    def target_logits(self, text: str, target_ids: Sequence[int]) -> Iterator[Floats]:
        """Logits of an answer's tokens in chunks, each float32 [tokens, vocabulary]; row i predicts token i."""
        return self._read(text).feed([self._start, *target_ids[:-1]])

    def answer_nll(self, text: str, target_ids: Sequence[int]) -> SequenceScore:
        """Score an answer, each token predicted from the text and the tokens before it."""
        return score(self.target_logits(text, target_ids), target_ids, [True] * len(target_ids))

    @property
    def _start(self) -> int:
        return self.card.start_token_id or 0

    def _read(self, text: str) -> AppendedCache:
        """An empty cache for an answer to a text, which the encoder has read."""
        return AppendedCache(self.session, read_text(self.encoder, self.tokenizer.encode(text).ids))

    def misfit(self) -> str | None:
        made = {value.name for value in self.encoder.get_outputs()}
        outputs = [value.name for value in self.session.get_outputs()]
        if "logits" not in outputs:
            return f"has no output 'logits', only {', '.join(outputs)}"
        if self.card.start_token_id is None:
            return "has no token to begin an answer with"
        known = {"input_ids", MASK, *made}
        wanted = [value.name for value in self.session.get_inputs()]
        return unknown_inputs([name for name in wanted if not name.startswith(PAST) and name not in known])


def read_text(encoder: ort.InferenceSession, ids: Sequence[int]) -> dict[str, ort.OrtValue]:
    """What the decoder needs of a text's tokens."""
    import onnxruntime as ort

    tokens = np.asarray([ids], dtype=np.int64)
    mask = ort.OrtValue.ortvalue_from_numpy(np.ones_like(tokens))
    given = {"input_ids": ort.OrtValue.ortvalue_from_numpy(tokens), "attention_mask": mask}
    names = [value.name for value in encoder.get_outputs()]
    return {MASK: mask, **dict(zip(names, encoder.run_with_ort_values(names, given), strict=True))}
