"""One answer of a writing model: what was asked, and what has been written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hpo.serving.answer_text import AnswerText
from hpo.serving.sampling import Sampler, Sampling, likeliest
from trainers.runtime.prompts import Prompts
from trainers.runtime.scores import Floats


@dataclass(frozen=True)
class Wish:
    """What a request wants of each of its answers."""

    max_tokens: int | None = None
    """None for what the release was measured with."""
    sampling: Sampling = field(default_factory=Sampling)
    stops: tuple[str, ...] = ()
    logprobs: int | None = None
    """How many alternatives to list for each token; None for no log probabilities at all."""


class TokenScore(NamedTuple):
    """A token's log probability, and the most likely tokens in its place."""

    token: int
    logprob: float
    likeliest: list[tuple[int, float]]


class Piece(NamedTuple):
    """What became certain with one token, or with the end of the answer."""

    text: str
    scores: tuple[TokenScore, ...] = ()
    finish_reason: str | None = None
    """`stop`, `length` or `content_filter`; set in the last piece alone."""


class Answer:
    """An answer that is being written. The step loop's thread writes it; `send` is called there too."""

    def __init__(
        self,
        prompts: Prompts,
        prompt_ids: Sequence[int],
        wish: Wish,
        send: Callable[[Piece | Exception], None],
        choice: int = 0,
    ) -> None:
        """`choice` counts the answers to one prompt."""
        self.prompt_ids = list(prompt_ids)
        self.ids: list[int] = []
        self.is_abandoned = False
        """Set when nobody reads it any more."""
        self.began = self.last = time.perf_counter()
        self._wish = wish
        self._most = prompts.answer_length(wish.max_tokens)
        self._ends = frozenset(prompts.card.eos_token_ids)
        self._sampler = Sampler(wish.sampling, choice)
        self._text = AnswerText(prompts, prompt_ids, wish.stops)
        self._scores: list[TokenScore] = []
        self._send = send

    def take(self, logits: Floats) -> str | None:
        """Choose the next token by its logits, float32 [vocabulary]; returns the reason to end here, or None."""
        token = self._sampler.choose(logits)
        if token in self._ends:
            return self._finish("stop")
        self.ids.append(token)
        if self._wish.logprobs is not None:
            self._scores.append(TokenScore(token, *likeliest(logits, token, self._wish.logprobs)))
        text = self._text.add(token)
        if self._text.is_stopped:
            return self._finish("stop", text)
        if len(self.ids) >= self._most:
            return self._finish("length", text)
        if text:
            self._send(Piece(text, self._taken_scores()))
        return None

    def fail(self, error: Exception) -> None:
        """End it with an error, which its reader gets."""
        self._send(error)

    def _finish(self, reason: str, text: str = "") -> str:
        self._send(Piece(text + self._text.end(), self._taken_scores(), reason))
        return reason

    def _taken_scores(self) -> tuple[TokenScore, ...]:
        scores, self._scores = tuple(self._scores), []
        return scores


class Mailbox:
    """The pieces of all answers to one request, from the step loop's thread to the request's task."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, Piece | Exception]] = asyncio.Queue()

    def sender(self, number: int) -> Callable[[Piece | Exception], None]:
        """What puts the pieces of answer `number` here."""

        def send(piece: Piece | Exception) -> None:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, (number, piece))

        return send

    async def pieces(self, under_way: set[int]) -> AsyncIterator[tuple[int, Piece]]:
        """The pieces as they come, each with the number of its answer, until none is under way.

        An answer that ends leaves `under_way`; one that its reader takes out is read no further. Raises what an answer
        failed with.
        """
        while under_way:
            number, piece = await self._queue.get()
            if isinstance(piece, Exception):
                raise piece
            if number not in under_way:
                continue
            if piece.finish_reason is not None:
                under_way.discard(number)
            yield number, piece
