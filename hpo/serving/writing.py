"""`/v1/chat/completions` and `/v1/completions`: prompts made, answers queued, and given whole or as a stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from hpo.quoting import listed
from hpo.serving.answer import Answer, Mailbox, Wish
from hpo.serving.answer_loop import AnswerLoop
from hpo.serving.bodies import ChatBody, CompletionBody, WritingBody
from hpo.serving.limits import Limits
from hpo.serving.refusal import Refusal, bad_request
from hpo.serving.schemas import Form
from hpo.serving.served import Served
from hpo.serving.shapes import Choice, Shape
from trainers.runtime.beams import Beams
from trainers.runtime.inputs import parts_of, read_input
from trainers.runtime.rewrite import Rewriter
from trainers.runtime.write import Writer


class Asked(NamedTuple):
    """A prompt as tokens."""

    ids: list[int]
    """What an answer is written after."""
    text_ids: Sequence[int] = ()
    """Of text-to-text: the text, which the encoder reads."""


class Conversation:
    """The answers to one request: one to each prompt, or `n`."""

    def __init__(
        self, loop: AnswerLoop, release: Writer | Rewriter, asked: Sequence[Asked], wish: Wish, each: int
    ) -> None:
        """Queues the answers. Raises `Refusal` where the queue is full."""
        self._mailbox = Mailbox()
        self._asked = asked
        self.answers = [
            Answer(
                release.prompts, prompt.ids, wish, self._mailbox.sender(place * each + choice), choice, prompt.text_ids
            )
            for place, prompt in enumerate(asked)
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
        read = sum(len(prompt.text_ids or prompt.ids) for prompt in self._asked)
        written = sum(len(answer.ids) for answer in self.answers)
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
    wish = replace(wish, form=await _form(loop, body))

    def tokens() -> list[Asked]:
        return [Asked(release.prompts.chat_ids(read_input(body.chat, "messages", "chat"), wish.max_tokens))]

    asked = await _tokens_of(tokens, "messages")
    shape = Shape(served.name, release.tokenizer, is_chat=True, has_scores=wish.logprobs is not None)
    return await _respond(Conversation(loop, release, asked, wish, _choices(body, limits)), shape, body)


async def answer_completion(served: Served, body: CompletionBody, limits: Limits) -> Response:
    """Continue prompts, answer filled templates, or rewrite texts. Raises `Refusal`."""
    release, loop = _writer(served)
    if release.card.chat_template is not None:  # a prompt of one text could speak in every role
        raise bad_request(f"{served.name} has a chat template; use /v1/chat/completions", "model", "is_chat")
    each, wish = _choices(body, limits), body.wanted
    if not 0 < len(body.prompts) <= limits.waiting_answers:
        raise bad_request(f"prompt: expected 1 to {limits.waiting_answers}, got {len(body.prompts)}", "prompt")
    loop.check_room(len(body.prompts) * each)
    wish = replace(wish, form=await _form(loop, body))
    wish = replace(wish, beams=_beams(release, body, wish, limits))
    asked = await _tokens_of(partial(_prompts_of, release, body, wish.max_tokens), "prompt")
    shape = Shape(served.name, release.tokenizer, is_chat=False, has_scores=wish.logprobs is not None)
    return await _respond(Conversation(loop, release, asked, wish, each), shape, body)


def _prompts_of(release: Writer | Rewriter, body: CompletionBody, max_tokens: int | None) -> list[Asked]:
    """The prompts of a body as tokens. Raises `ValueError`."""
    card, prompts = release.card, release.prompts
    read = [read_input(given, f"prompt {i}", card.task) for i, given in enumerate(body.prompts)]
    parts = [parts_of(given, f"prompt {i}", card) for i, given in enumerate(read)]
    if isinstance(release, Rewriter):
        return [Asked([release.start], release.text_ids(given[card.columns[0]])) for given in parts]
    return [Asked(prompts.continued_ids(prompts.filled(given), max_tokens)) for given in parts]


def _beams(release: Writer | Rewriter, body: CompletionBody, wish: Wish, limits: Limits) -> Beams | None:
    """How answers are searched: as the request says, else as the model's checkpoint does, where nothing speaks against.

    Raises `Refusal` where the request asks for both beams and what they cannot do.
    """
    if not isinstance(release, Rewriter):
        if (body.num_beams or 1) > 1:
            raise bad_request("num_beams: expected a model of text-to-text, whose answers can be searched", "num_beams")
        return None
    wanted = release.beams.width if body.num_beams is None else body.num_beams
    against = {
        "temperature above 0": wish.sampling.temperature > 0, "n": (body.n or 1) > 1,
        "logprobs": wish.logprobs is not None, "response_format": wish.form is not None,
    }  # fmt: skip
    found = [name for name, is_asked in against.items() if is_asked]
    if wanted == 1 or (found and body.num_beams is None):
        return None
    if found:
        raise bad_request(f"num_beams: cannot go together with {listed(found)}", "num_beams")
    if body.num_beams is not None and wanted > limits.rows:
        raise bad_request(f"num_beams: expected at most {limits.rows}, got {wanted}", "num_beams")
    return replace(release.beams, width=wanted)


async def _form(loop: AnswerLoop, body: WritingBody) -> Form | None:
    """What an answer must be; None for any text. Raises `Refusal`."""
    wanted = None if body.response_format is None else body.response_format.wanted
    return None if wanted is None else await loop.schemas.form(wanted)


async def _tokens_of(tokens: Callable[[], list[Asked]], param: str) -> list[Asked]:
    """Prompts as tokens, made in another thread: a template may take a second. Raises `Refusal`."""
    try:
        return await asyncio.to_thread(tokens)
    except ValueError as error:
        raise bad_request(str(error), param) from error


async def _respond(conversation: Conversation, shape: Shape, body: WritingBody) -> Response:
    if body.stream:
        return EventStream(conversation, shape, bool(body.stream_options and body.stream_options.include_usage))
    try:
        choices = await conversation.whole()
    finally:
        conversation.abandon()
    return JSONResponse(shape.whole(choices, conversation.usage))


def _writer(served: Served) -> tuple[Writer | Rewriter, AnswerLoop]:
    """The parts of a model that writes. Raises `Refusal` for one that judges."""
    if isinstance(served.release, Writer | Rewriter) and isinstance(served.engine, AnswerLoop):
        return served.release, served.engine
    raise bad_request(f"{served.name} does {served.release.card.task}; use /v1/classify", "model", "wrong_task")


def _choices(body: WritingBody, limits: Limits) -> int:
    if (n := body.n or 1) > limits.choices:
        raise bad_request(f"n: expected at most {limits.choices}, got {n}", "n")
    return n
