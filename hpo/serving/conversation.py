"""The answers to one request of a model that writes: queued together, filtered, sent whole or as a stream, logged."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from hpo.serving.answer import Answer, Mailbox, Wish
from hpo.serving.answer_loop import AnswerLoop
from hpo.serving.gate import Passage
from hpo.serving.prediction_log import PredictionLog
from hpo.serving.prediction_rows import Written, log_written
from hpo.serving.refusal import END_OF_EVENTS, Refusal, event
from hpo.serving.served import Served
from hpo.serving.shapes import Choice, Shape
from hpo.serving.watch import Watch
from trainers.runtime.rewrite import Rewriter
from trainers.runtime.write import Writer


@dataclass(frozen=True)
class Asked:
    """A prompt that has passed the filters."""

    content: Mapping[str, Any]
    """A chat, or the texts of a template's columns."""
    passage: Passage
    ids: list[int]
    """What an answer is written after."""
    text_ids: Sequence[int] = ()
    """Of text-to-text: the text, which the encoder reads."""

    @property
    def length(self) -> int:
        """Tokens that the model reads."""
        return len(self.text_ids or self.ids)


class Conversation:
    """The answers to one request: one to each prompt, or `n`."""

    def __init__(
        self, served: Served, loop: AnswerLoop, release: Writer | Rewriter, asked: Sequence[Asked], wish: Wish,
        each: int, watch: Watch,
    ) -> None:  # fmt: skip
        """Queues the answers. Raises `Refusal` where the queue is full."""
        self._mailbox = Mailbox()
        self._served = served
        self._log = watch.log
        self.asked = asked
        self._asked_of = [one for one in asked for _ in range(each)]
        self.answers = [
            Answer(release.prompts, one.ids, wish, self._mailbox.sender(number), number % each, one.text_ids)
            for number, one in enumerate(self._asked_of)
        ]
        for answer in self.answers:
            answer.session = release.session if release.card.adapter_hash else None
        self._under_way = set(range(len(self.answers)))
        self._screens = [one.passage.screen() for one in self._asked_of]
        self._texts = [""] * len(self.answers)
        loop.add(self.answers)

    def abandon(self) -> None:
        """Free the rows and the places in the queue that it still has."""
        for answer in self.answers:
            answer.is_abandoned = True

    async def whole(self) -> list[Choice]:
        """All answers, when the last one has ended."""
        choices = [Choice() for _ in self.answers]
        async for number, piece in self._pieces():
            choice = choices[number]
            choice.text += piece.text
            choice.scores += piece.scores
            choice.finish_reason, choice.filtered = piece.finish_reason, piece.filtered
        return choices

    async def chunks(self, shape: Shape, with_usage: bool) -> AsyncIterator[dict[str, Any]]:
        """The chunks of a stream. An error in the middle of it becomes its last chunk."""
        if shape.is_chat:
            for number in range(len(self.answers)):
                yield shape.opening(number)
        try:
            async for number, piece in self._pieces():
                yield shape.chunk(number, piece)
        except Refusal as refusal:
            yield refusal.body
            return
        if with_usage:
            yield shape.closing(self.usage)

    @property
    def usage(self) -> dict[str, int]:
        """Tokens read and written; a prompt with several answers counts once."""
        read = sum(one.length for one in self.asked)
        written = sum(len(answer.ids) for answer in self.answers)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    async def _pieces(self) -> AsyncIterator[tuple[int, Choice]]:
        """What may leave of the answers, each with its number. All of every answer comes from here."""
        async for number, piece in self._mailbox.pieces(self._under_way):
            screen, reason = self._screens[number], piece.finish_reason
            text = await screen.passed(piece.text, is_end=reason is not None)
            if screen.is_refused:
                reason = "content_filter"
                self.answers[number].is_abandoned = True
                self._under_way.discard(number)
            if self._log is not None:
                self._texts[number] += text
                self._log_ended(self._log, number, reason)
            if text or piece.scores or reason:
                filtered = screen.decisions if screen.has_filters and reason else None
                yield number, Choice(text, list(piece.scores), reason, filtered)

    def _log_ended(self, log: PredictionLog, number: int, reason: str | None) -> None:
        """Write down an answer that has ended, if it is drawn."""
        if reason is None or not log.is_drawn():
            return
        answer, asked = self.answers[number], self._asked_of[number]
        written = Written(self._texts[number], reason, asked.length, len(answer.ids))
        log_written(log, self._served, asked.content, written, 1000 * (time.perf_counter() - answer.began))


class EventStream(StreamingResponse):
    """A conversation as server-sent events; however it ends, its rows are free afterwards."""

    def __init__(self, conversation: Conversation, shape: Shape, with_usage: bool) -> None:
        self._conversation = conversation
        events = _events(conversation.chunks(shape, with_usage))
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._conversation.abandon()


async def _events(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield event(chunk)
    yield END_OF_EVENTS
