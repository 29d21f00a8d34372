"""`/v1/chat/completions` and `/v1/completions`: prompts made, answers queued, and given whole or as a stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from hpo.serving.answer import Answer, Mailbox, Wish
from hpo.serving.bodies import ChatBody, CompletionBody, WritingBody
from hpo.serving.limits import Limits
from hpo.serving.refusal import Refusal, bad_request
from hpo.serving.served import Served
from hpo.serving.shapes import Choice, Shape
from hpo.serving.step_loop import StepLoop
from trainers.runtime.inputs import parts_of, read_input
from trainers.runtime.write import Writer


class Conversation:
    """The answers to one request: one to each prompt, or `n`."""

    def __init__(self, loop: StepLoop, release: Writer, asked: Sequence[list[int]], wish: Wish, each: int) -> None:
        """Queues the answers. Raises `Refusal` where the queue is full."""
        self._mailbox = Mailbox()
        self._asked = asked
        self.answers = [
            Answer(release.prompts, ids, wish, self._mailbox.sender(place * each + choice), choice)
            for place, ids in enumerate(asked)
            for choice in range(each)
        ]
        for answer in self.answers:
            answer.session = release.session if release.card.adapter_hash else None
        loop.add(self.answers)

    def abandon(self) -> None:
        """Free the rows and the places in the queue that it still has."""
        for answer in self.answers:
            answer.is_abandoned = True

    async def whole(self) -> list[Choice]:
        """All answers, when the last one has ended."""
        choices = [Choice() for _ in self.answers]
        async for number, piece in self._mailbox.pieces(len(self.answers)):
            choice = choices[number]
            choice.text += piece.text
            choice.scores += piece.scores
            choice.finish_reason = piece.finish_reason
        return choices

    async def chunks(self, shape: Shape, with_usage: bool) -> AsyncIterator[dict[str, Any]]:
        """The chunks of a stream. An error in the middle of it becomes its last chunk."""
        if shape.is_chat:
            for number in range(len(self.answers)):
                yield shape.opening(number)
        try:
            async for number, piece in self._mailbox.pieces(len(self.answers)):
                yield shape.chunk(number, Choice(piece.text, list(piece.scores), piece.finish_reason))
        except Refusal as refusal:
            yield refusal.body
            return
        if with_usage:
            yield shape.closing(self.usage)

    @property
    def usage(self) -> dict[str, int]:
        """Tokens read and written; a prompt with several answers counts once."""
        read, written = sum(map(len, self._asked)), sum(len(answer.ids) for answer in self.answers)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


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


async def answer_chat(served: Served, body: ChatBody, limits: Limits) -> Response:
    """Answer a chat. Raises `Refusal`."""
    release, loop = _writer(served)
    if release.card.chat_template is None:
        raise bad_request(f"{served.name} has no chat template; use /v1/completions", "model", "no_chat_template")
    wish = body.wanted
    loop.check_room(1)

    def tokens() -> list[list[int]]:
        return [release.prompts.chat_ids(read_input(body.chat, "messages", "chat"), wish.max_tokens)]

    asked = await _tokens_of(tokens, "messages")
    shape = Shape(served.name, release.tokenizer, is_chat=True, has_scores=wish.logprobs is not None)
    return await _respond(Conversation(loop, release, asked, wish, _choices(body, limits)), shape, body)


async def answer_completion(served: Served, body: CompletionBody, limits: Limits) -> Response:
    """Continue prompts, or answer filled templates. Raises `Refusal`."""
    release, loop = _writer(served)
    card, prompts, wish = release.card, release.prompts, body.wanted
    if card.chat_template is not None:  # a prompt of one text could speak in every role
        raise bad_request(f"{served.name} has a chat template; use /v1/chat/completions", "model", "is_chat")
    each = _choices(body, limits)
    if not 0 < len(body.prompts) <= limits.waiting_answers:
        raise bad_request(f"prompt: expected 1 to {limits.waiting_answers}, got {len(body.prompts)}", "prompt")
    loop.check_room(len(body.prompts) * each)

    def tokens() -> list[list[int]]:
        read = [read_input(given, f"prompt {i}", card.task) for i, given in enumerate(body.prompts)]
        parts = [parts_of(given, f"prompt {i}", card) for i, given in enumerate(read)]
        return [prompts.continued_ids(prompts.filled(given), wish.max_tokens) for given in parts]

    asked = await _tokens_of(tokens, "prompt")
    shape = Shape(served.name, release.tokenizer, is_chat=False, has_scores=wish.logprobs is not None)
    return await _respond(Conversation(loop, release, asked, wish, each), shape, body)


async def _tokens_of(tokens: Any, param: str) -> list[list[int]]:
    """Prompts as tokens, made in another thread: a template may take a second. Raises `Refusal`."""
    try:
        asked: list[list[int]] = await asyncio.to_thread(tokens)
    except ValueError as error:
        raise bad_request(str(error), param) from error
    return asked


async def _respond(conversation: Conversation, shape: Shape, body: WritingBody) -> Response:
    if body.stream:
        return EventStream(conversation, shape, bool(body.stream_options and body.stream_options.include_usage))
    try:
        choices = await conversation.whole()
    finally:
        conversation.abandon()
    return JSONResponse(shape.whole(choices, conversation.usage))


def _writer(served: Served) -> tuple[Writer, StepLoop]:
    """The parts of a model that writes. Raises `Refusal` for one that judges."""
    if isinstance(served.release, Writer) and isinstance(served.engine, StepLoop):
        return served.release, served.engine
    raise bad_request(f"{served.name} does {served.release.card.task}; use /v1/classify", "model", "wrong_task")


def _choices(body: WritingBody, limits: Limits) -> int:
    if (n := body.n or 1) > limits.choices:
        raise bad_request(f"n: expected at most {limits.choices}, got {n}", "n")
    return n
