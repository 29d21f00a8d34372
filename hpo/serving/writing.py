"""`/v1/chat/completions` and `/v1/completions`: prompts made, answers queued, and given whole or as a stream."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from hpo.serving.admission import admit_chat, admit_columns, chat_of
from hpo.serving.answer import Answer, Mailbox, Wish
from hpo.serving.bodies import ChatBody, CompletionBody, WritingBody
from hpo.serving.filters import as_json
from hpo.serving.gate import Passage
from hpo.serving.limits import Limits
from hpo.serving.prediction_log import PredictionLog
from hpo.serving.prediction_rows import Written, log_written
from hpo.serving.refusal import Refusal, bad_request
from hpo.serving.served import Served
from hpo.serving.shapes import Choice, Shape
from hpo.serving.step_loop import StepLoop
from hpo.serving.watch import Watch
from trainers.runtime.inputs import parts_of, read_input
from trainers.runtime.prompts import Prompts
from trainers.runtime.write import Writer

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """A prompt that has passed the filters."""

    content: Mapping[str, Any]
    """A chat, or the texts of a template's columns."""
    ids: list[int]
    passage: Passage


class Conversation:
    """The answers to one request: one to each prompt, or `n`."""

    def __init__(
        self, served: Served, loop: StepLoop, prompts: Prompts, asked: Sequence[Asked], wish: Wish, each: int,
        watch: Watch,
    ) -> None:  # fmt: skip
        """Queues the answers. Raises `Refusal` where the queue is full."""
        self._mailbox = Mailbox()
        self._served = served
        self._log = watch.log
        self.asked = asked
        self.answers = [
            Answer(prompts, one.ids, wish, self._mailbox.sender(place * each + choice), choice)
            for place, one in enumerate(asked)
            for choice in range(each)
        ]
        self._asked_of = [one for one in asked for _ in range(each)]
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
        read, written = sum(len(one.ids) for one in self.asked), sum(len(answer.ids) for answer in self.answers)
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
        written = Written(self._texts[number], reason, len(asked.ids), len(answer.ids))
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


async def _events(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    async for chunk in chunks:
        yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"


async def answer_chat(served: Served, body: ChatBody, limits: Limits, watch: Watch) -> Response:
    """Answer a chat. Raises `Refusal`."""
    release, loop = _writer(served)
    if release.card.chat_template is None:
        raise bad_request(f"{served.name} has no chat template; use /v1/completions", "model", "no_chat_template")
    wish = _wish(body, watch)
    loop.check_room(1)
    passage = watch.gate.passage(served.name)
    chat = await _made(lambda: chat_of(read_input(body.chat, "messages", "chat")), "messages")
    if watch.gate:
        chat = await admit_chat(passage, chat)
    ids = await _made(lambda: release.prompts.chat_ids(chat, wish.max_tokens), "messages")
    asked = [Asked(chat, ids, passage)]
    shape = Shape(served.name, release.tokenizer, is_chat=True, has_scores=wish.logprobs is not None)
    each = _choices(body, limits)
    return await _respond(Conversation(served, loop, release.prompts, asked, wish, each, watch), shape, body)


async def answer_completion(served: Served, body: CompletionBody, limits: Limits, watch: Watch) -> Response:
    """Continue prompts, or answer filled templates. Raises `Refusal`."""
    release, loop = _writer(served)
    card, prompts, wish = release.card, release.prompts, _wish(body, watch)
    if card.chat_template is not None:  # a prompt of one text could speak in every role
        raise bad_request(f"{served.name} has a chat template; use /v1/chat/completions", "model", "is_chat")
    each = _choices(body, limits)
    if not 0 < len(body.prompts) <= limits.waiting_answers:
        raise bad_request(f"prompt: expected 1 to {limits.waiting_answers}, got {len(body.prompts)}", "prompt")
    loop.check_room(len(body.prompts) * each)
    passages = [watch.gate.passage(served.name, f"prompt {i}") for i in range(len(body.prompts))]

    def read() -> list[dict[str, str]]:
        given = [read_input(one, f"prompt {i}", card.task) for i, one in enumerate(body.prompts)]
        return [parts_of(one, f"prompt {i}", card) for i, one in enumerate(given)]

    parts = await _made(read, "prompt")
    admitted = [await admit_columns(one, columns, "prompt") for one, columns in zip(passages, parts, strict=True)]

    def tokens() -> list[list[int]]:
        return [prompts.continued_ids(prompts.filled(given), wish.max_tokens) for given in admitted]

    asked = [Asked(*one) for one in zip(admitted, await _made(tokens, "prompt"), passages, strict=True)]
    shape = Shape(served.name, release.tokenizer, is_chat=False, has_scores=wish.logprobs is not None)
    return await _respond(Conversation(served, loop, prompts, asked, wish, each, watch), shape, body)


def _wish(body: ChatBody | CompletionBody, watch: Watch) -> Wish:
    """What is wanted of each answer. Raises `Refusal`: log probabilities would show what filters hold back."""
    wish = body.wanted
    if wish.logprobs is not None and watch.gate:
        raise bad_request("logprobs are not given while answers are filtered", "logprobs", "unsupported_parameter")
    return wish


async def _made(make: Callable[[], T], param: str) -> T:
    """What is made of a request, in another thread: a template may take a second. Raises `Refusal`."""
    try:
        return await asyncio.to_thread(make)
    except ValueError as error:
        raise bad_request(str(error), param) from error


async def _respond(conversation: Conversation, shape: Shape, body: WritingBody) -> Response:
    if body.stream:
        return EventStream(conversation, shape, bool(body.stream_options and body.stream_options.include_usage))
    try:
        choices = await conversation.whole()
    finally:
        conversation.abandon()
    whole = shape.whole(choices, conversation.usage)
    if any(one.passage.decisions for one in conversation.asked):
        whole["prompt_filter_results"] = [
            {"prompt_index": index, "content_filter_results": as_json(one.passage.decisions)}
            for index, one in enumerate(conversation.asked)
        ]
    return JSONResponse(whole)


def _writer(served: Served) -> tuple[Writer, StepLoop]:
    """The parts of a model that writes. Raises `Refusal` for one that judges."""
    if isinstance(served.release, Writer) and isinstance(served.engine, StepLoop):
        return served.release, served.engine
    raise bad_request(f"{served.name} does {served.release.card.task}; use /v1/classify", "model", "wrong_task")


def _choices(body: WritingBody, limits: Limits) -> int:
    if (n := body.n or 1) > limits.choices:
        raise bad_request(f"n: expected at most {limits.choices}, got {n}", "n")
    return n
