"""One answer of a writing model: what was asked, and what has been written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hpo.serving.answer_text import AnswerText
from hpo.serving.refusal import Refusal
from hpo.serving.sampling import Sampler, Sampling, likeliest
from hpo.serving.schemas import Form
from trainers.runtime.beams import Beams
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
    form: Form | None = None
    """What the answer must be, where a request says it (`response_format`)."""
    beams: Beams | None = None
    """Of text-to-text: how it is searched; None for token by token."""


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
        text_ids: Sequence[int] = (),
    ) -> None:
        """`choice` counts the answers to one prompt; `text_ids` are for the encoder of a model that has one."""
        self.prompt_ids = list(prompt_ids)
        self.text_ids = list(text_ids)
        self.ids: list[int] = []
        self.session: Any = None
        """What runs the graph for it, where that is an adapter of a bundle."""
        self.adapter_hash = prompts.card.adapter_hash
        self.most = prompts.answer_length(wish.max_tokens)
        """How many tokens it may have."""
        self.is_abandoned = False
        """Set when nobody reads it any more."""
        self.began = self.last = time.perf_counter()
        self._wish = wish
        self._ends = frozenset(prompts.card.eos_token_ids)
        self._rules = prompts.rules(self.most)
        self._sampler = Sampler(wish.sampling, choice)
        self._form = wish.form and wish.form.begun()
        # JSON knows no template, whose next column would end it.
        self._text = AnswerText(prompts.untemplated if wish.form else prompts, prompt_ids, wish.stops)
        self._scores: list[TokenScore] = []
        self._send = send

    @property
    def beams(self) -> Beams | None:
        """How it is searched; None where it is written token by token."""
        return self._wish.beams

    @property
    def rows(self) -> int:
        """How many rows of the cache it takes."""
        return 1 if self.beams is None else self.beams.width

    def take(self, logits: Floats) -> str | None:
        """Choose the next token by its logits, float32 [vocabulary]; returns the reason to end here, or None."""
        try:
            token = self._next(logits)
        except Refusal as refusal:
            self.fail(refusal)
            return "error"
        if token in self._ends:
            return self._finish(self._reason_to_end)
        self.ids.append(token)
        if self._wish.logprobs is not None:
            self._scores.append(TokenScore(token, *likeliest(logits, token, self._wish.logprobs)))
        text = self._text.add(token)
        if self._text.is_stopped or (self._form and self._form.is_whole):
            return self._finish("stop", text)
        if len(self.ids) >= self.most:
            return self._finish("length", text)
        if text:
            self._send(Piece(text, self._taken_scores()))
        return None

    @property
    def _reason_to_end(self) -> str:
        """Why an end-of-text token comes now: some models have one as the last of their tokens, whatever they say."""
        return "length" if len(self.ids) in self._rules.forced else "stop"

    def _next(self, logits: Floats) -> int:
        forced = self._rules.forced.get(len(self.ids))
        if forced is not None:
            return forced
        if self._form is not None:  # JSON repeats itself, and ends when it is whole
            return self._form.choose(logits, self._sampler.choose)
        return self._sampler.choose(self._rules.applied(logits, self.ids))

    def give(self, ids: Sequence[int]) -> str:
        """Take all tokens at once, with the one that ends it if there is one; returns the reason for its end."""
        is_ended, text = ids[-1] in self._ends, ""
        for token in ids[:-1] if is_ended else ids:
            self.ids.append(token)
            text += self._text.add(token)
            if self._text.is_stopped:
                return self._finish("stop", text)
        return self._finish(self._reason_to_end if is_ended else "length", text)

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
            with suppress(RuntimeError):  # the loop was closed meanwhile: the server has ended, and nobody reads
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
