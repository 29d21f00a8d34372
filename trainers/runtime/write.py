"""Answers of a model that writes: to a chat, to a prompt, or the continuation of a text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .cache import PAST, AppendedCache, Cache, InPlaceCache
from .inputs import parts_of
from .prompts import Prompts
from .release import Release, unknown_inputs
from .scores import Floats, log_softmax

_INPUTS = ("input_ids", "attention_mask", "position_ids")
"""Inputs that a graph may have, besides its cache."""


class SequenceScore(NamedTuple):
    """A language model's score of one sequence, summed over its target tokens."""

    nll: float
    """Sum of the negative log-likelihoods, in nats."""
    tokens: int
    hits: int
    """Target tokens that the model ranks first."""


def score(chunks: Iterable[Floats], targets: Sequence[int], wanted: Sequence[bool]) -> SequenceScore:
    """The score of `targets` where they are `wanted`; `chunks` are their logits, each float32 [tokens, vocabulary]."""
    nll, hits, start = 0.0, 0, 0
    ids, asked = np.asarray(targets, dtype=np.int64), np.asarray(wanted, dtype=bool)
    for logits in chunks:
        rows = np.flatnonzero(asked[start : start + len(logits)])
        true = ids[start + rows]
        nll -= float(log_softmax(logits[rows])[np.arange(len(rows)), true].sum())
        hits += int((logits[rows].argmax(axis=-1) == true).sum())
        start += len(logits)
    return SequenceScore(nll, int(asked.sum()), hits)


class Writer(Release):
    """A model of chat, instruct or causal-lm, whose graph has a cache."""

    def cache(self, capacity: int) -> Cache:
        """An empty cache for a sequence of at most `capacity` tokens."""
        return AppendedCache(self.session) if self.card.cache == "appended" else InPlaceCache(self.session, capacity)

    @cached_property
    def prompts(self) -> Prompts:
        """Makes its prompts."""
        return Prompts(self.card, self.tokenizer)

    def _answers(self, inputs: Sequence[Any], max_new_tokens: int | None, first: int = 0) -> list[dict[str, Any]]:
        prompts = self.prompts
        if self.card.task == "chat":
            asked = [prompts.chat_ids(chat, max_new_tokens) for chat in inputs]
        else:
            parts = [parts_of(given, f"input {index}", self.card) for index, given in enumerate(inputs, first)]
            asked = [prompts.continued_ids(prompts.filled(given), max_new_tokens) for given in parts]
        return [{"text": prompts.decoded(ids, list(self.generate(ids, max_new_tokens)))} for ids in asked]

    def generate(self, prompt_ids: Sequence[int], max_new_tokens: int | None = None) -> Iterator[int]:
        """Yield the answer's token ids one by one, decoded greedily, up to but without an end-of-text token."""
        for token in self.greedy_tokens(prompt_ids, self.prompts.answer_length(max_new_tokens)):
            if token in self.card.eos_token_ids:
                return
            yield token

    def greedy_tokens(self, prompt_ids: Sequence[int], count: int) -> Iterator[int]:
        """Yield `count` tokens, each the most likely one after those before it; an end-of-text token ends nothing.

        Raises `ValueError` where prompt and answer exceed the context; `Prompts` always leaves enough space.
        """
        if not 0 < len(prompt_ids) <= self.card.max_length - count:
            raise ValueError(
                f"a prompt of {len(prompt_ids)} tokens and an answer of {count} do not fit into the model's context of "
                f"{self.card.max_length} tokens"
            )
        cache = self.cache(len(prompt_ids) + count)
        chunk = list(prompt_ids)
        for _ in range(count):
            token = -1
            for logits in cache.feed(chunk):
                token = int(logits[-1].argmax())
            yield token
            chunk = [token]

    def token_logits(self, input_ids: Sequence[int]) -> Floats:
        """Logits of one sequence, float32 [tokens, vocabulary]; row i predicts token i + 1."""
        return np.concatenate(list(self.cache(len(input_ids)).feed(input_ids)))

    def sequence_nll(self, input_ids: Sequence[int], loss_mask: Sequence[int]) -> SequenceScore:
        """Score the tokens i of one sequence with `loss_mask[i]` = 1, each predicted from the tokens before it.

        So the first token never counts.
        """
        chunks = self.cache(len(input_ids)).feed(input_ids)
        return score(chunks, input_ids[1:], [bool(wanted) for wanted in loss_mask[1:]])

    def misfit(self) -> str | None:
        outputs = [value.name for value in self.session.get_outputs()]
        if "logits" not in outputs:
            return f"has no output 'logits', only {', '.join(outputs)}"
        given = self.session.get_inputs()
        past = [value for value in given if value.name.startswith(PAST)]
        known = [value.name for value in past if value.type == "tensor(float)" and isinstance(value.shape[3], int)]
        return unknown_inputs([value.name for value in given if value.name not in (*known, *_INPUTS)])
