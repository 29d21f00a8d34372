"""Texts written from texts by an encoder-decoder: summaries, translations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from .beams import Beams, BeamSearch
from .cache import PAST, AppendedCache
from .card import Card
from .inputs import parts_of
from .prompts import Prompts
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

    def _answers(self, inputs: Sequence[Any], max_new_tokens: int | None, first: int = 0) -> list[dict[str, Any]]:
        parts = [parts_of(given, f"input {index}", self.card) for index, given in enumerate(inputs, first)]
        texts = [given[self.card.columns[0]] for given in parts]
        return [{"text": self.tokenizer.decode(self.written(text, max_new_tokens))} for text in texts]

    @cached_property
    def prompts(self) -> Prompts:
        """What answers are measured and spelled with."""
        return Prompts(self.card, self.tokenizer)

    @property
    def beams(self) -> Beams:
        """How its base model's checkpoint says that answers are searched; its width is 1 where it says nothing."""
        return Beams.of(self.card.generation)

    def written(self, text: str, max_new_tokens: int | None = None, beams: Beams | None = None) -> list[int]:
        """The answer's token ids without an end-of-text token: by beams as given, or else as the release has them."""
        beams = beams or self.beams
        if beams.width == 1:
            return list(self.generate(text, max_new_tokens))
        search = self.search(beams, self.prompts.answer_length(max_new_tokens))
        cache = self.cache(self.read(self.text_ids(text)), beams.width)
        while not search.take(cache.extend(search.last)[:, -1]):
            cache.follow(search.parents)
        *before, last = search.answer
        return before if last in self.card.eos_token_ids else [*before, last]

    def search(self, beams: Beams, most: int) -> BeamSearch:
        """A search that is to begin for an answer of at most `most` tokens."""
        return BeamSearch(beams, self.start, most, self.card.eos_token_ids, self.prompts.rules(most))

    def generate(self, text: str, max_new_tokens: int | None = None) -> Iterator[int]:
        """Yield the answer's token ids one by one, decoded greedily, up to but without an end-of-text token."""
        for token in self.greedy_tokens(text, self.prompts.answer_length(max_new_tokens)):
            if token in self.card.eos_token_ids:
                return
            yield token

    def greedy_tokens(self, text: str, count: int) -> Iterator[int]:
        """Yield `count` tokens, each the most likely one after those before it; an end-of-text token ends nothing."""
        rules, ids = self.prompts.rules(count), list[int]()
        cache, token = self.cache(self.read(self.text_ids(text))), self.start
        for _ in range(count):
            (logits,) = cache.feed([token])
            token = int(rules.applied(logits[-1], ids).argmax())
            ids.append(token)
            yield token

    def target_ids(self, answer: str) -> list[int]:
        """The tokens of an answer as training has them."""
        ids: list[int] = self.tokenizer.encode(answer).ids
        return ids

    def target_logits(self, text: str, target_ids: Sequence[int]) -> Iterator[Floats]:
        """Logits of an answer's tokens in chunks, each float32 [tokens, vocabulary]; row i predicts token i."""
        return self.cache(self.read(self.text_ids(text))).feed([self.start, *target_ids[:-1]])

    def answer_nll(self, text: str, target_ids: Sequence[int]) -> SequenceScore:
        """Score an answer, each token predicted from the text and the tokens before it."""
        return score(self.target_logits(text, target_ids), target_ids, [True] * len(target_ids))

    @property
    def start(self) -> int:
        """The token that every answer begins after."""
        return self.card.start_token_id or 0

    def text_ids(self, text: str) -> list[int]:
        """The tokens of a text, cut as in training; control tokens in it are text."""
        ids: list[int] = self.tokenizer.encode(text).ids
        return ids

    def read(self, ids: Sequence[int]) -> dict[str, ort.OrtValue]:
        """Let the encoder read a text's tokens: what its answers need of it."""
        return read_text(self.encoder, ids)

    def cache(self, text: Mapping[str, ort.OrtValue], rows: int = 1) -> AppendedCache:
        """An empty cache for answers to a text that was read, one in each row."""
        return AppendedCache(self.session, text, rows)

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
