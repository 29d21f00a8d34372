"""What a model that writes answers over HTTP: chats, continued texts, filled templates, rewritten texts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from starlette.responses import JSONResponse, Response

from hpo.quoting import listed
from hpo.serving.admission import admit_chat, admit_columns, chat_of
from hpo.serving.answer import Wish
from hpo.serving.answer_loop import AnswerLoop
from hpo.serving.bodies import ChatBody, CompletionBody, WritingBody
from hpo.serving.conversation import Asked, Conversation, EventStream
from hpo.serving.filters import as_json
from hpo.serving.limits import Limits
from hpo.serving.prediction_rows import refusals_logged
from hpo.serving.refusal import bad_request, refusing
from hpo.serving.schemas import Form
from hpo.serving.served import Served
from hpo.serving.shapes import Shape
from hpo.serving.watch import Watch
from trainers.runtime.beams import Beams
from trainers.runtime.inputs import parts_of, read_input
from trainers.runtime.rewrite import Rewriter
from trainers.runtime.write import Writer

T = TypeVar("T")


async def answer_chat(served: Served, body: ChatBody, limits: Limits, watch: Watch) -> Response:
    """Answer a chat. Raises `Refusal`."""
    release, loop = _writer(served)
    if release.card.chat_template is None:
        raise bad_request(f"{served.name} has no chat template; use /v1/completions", "model", "no_chat_template")
    each, wish = _choices(body, limits), _wish(body, watch)
    with loop.room(each):
        wish = replace(wish, form=await _form(loop, body))
        passage = watch.gate.passage(served.name)
        chat = await _made(lambda: chat_of(read_input(body.chat, "messages", "chat")), "messages")
        if watch.gate:
            with refusing("messages"), refusals_logged(watch.log, served, [passage]):
                chat = await admit_chat(passage, chat)
        ids = await _made(lambda: release.prompts.chat_ids(chat, wish.max_tokens), "messages")
        asked = [Asked(chat, passage, ids)]
        conversation = Conversation(served, loop, release, asked, wish, each, watch)
    shape = Shape(served.name, release.tokenizer, is_chat=True, has_scores=wish.logprobs is not None)
    return await _respond(conversation, shape, body)


async def answer_completion(served: Served, body: CompletionBody, limits: Limits, watch: Watch) -> Response:
    """Continue prompts, answer filled templates, or rewrite texts. Raises `Refusal`."""
    release, loop = _writer(served)
    if release.card.chat_template is not None:  # a prompt of one text could speak in every role
        raise bad_request(f"{served.name} has a chat template; use /v1/chat/completions", "model", "is_chat")
    each, wish = _choices(body, limits), _wish(body, watch)
    count = len(body.prompts) * each
    if not 0 < count <= limits.waiting_answers:
        found = f"{len(body.prompts)} prompts with n: {each}"
        raise bad_request(f"prompt: expected 1 to {limits.waiting_answers} answers, got {found}", "prompt")
    with loop.room(count):
        wish = replace(wish, form=await _form(loop, body))
        wish = replace(wish, beams=_beams(release, body, wish, limits))
        asked = await _asked(served, release, body, wish.max_tokens, watch)
        conversation = Conversation(served, loop, release, asked, wish, each, watch)
    shape = Shape(served.name, release.tokenizer, is_chat=False, has_scores=wish.logprobs is not None)
    return await _respond(conversation, shape, body)


async def _asked(
    served: Served, release: Writer | Rewriter, body: CompletionBody, max_tokens: int | None, watch: Watch
) -> Sequence[Asked]:
    """The prompts of a body as filters let them pass, and as tokens. Raises `Refusal`."""
    card, prompts = release.card, release.prompts
    passages = [watch.gate.passage(served.name, f"prompt {i}") for i in range(len(body.prompts))]

    def read() -> list[dict[str, str]]:
        given = [read_input(one, f"prompt {i}", card.task) for i, one in enumerate(body.prompts)]
        return [parts_of(one, f"prompt {i}", card) for i, one in enumerate(given)]

    parts = await _made(read, "prompt")
    with refusals_logged(watch.log, served, passages):
        admitted = [await admit_columns(one, columns, "prompt") for one, columns in zip(passages, parts, strict=True)]

    def asked() -> list[Asked]:
        if isinstance(release, Rewriter):
            text = card.columns[0]
            return [
                Asked(columns, passage, [release.start], release.text_ids(columns[text]))
                for columns, passage in zip(admitted, passages, strict=True)
            ]
        return [
            Asked(columns, passage, prompts.continued_ids(prompts.filled(columns), max_tokens))
            for columns, passage in zip(admitted, passages, strict=True)
        ]

    return await _made(asked, "prompt")


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


def _wish(body: ChatBody | CompletionBody, watch: Watch) -> Wish:
    """What is wanted of each answer. Raises `Refusal`: log probabilities would show what filters hold back."""
    wish = body.wanted
    if wish.logprobs is not None and watch.gate:
        raise bad_request("logprobs are not given while answers are filtered", "logprobs", "unsupported_parameter")
    return wish


async def _made(make: Callable[[], T], param: str) -> T:
    """What is made of a request, in another thread: a template may take a second. Raises `Refusal`."""
    with refusing(param):
        return await asyncio.to_thread(make)


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


def _writer(served: Served) -> tuple[Writer | Rewriter, AnswerLoop]:
    """The parts of a model that writes. Raises `Refusal` for one that judges."""
    if isinstance(served.release, Writer | Rewriter) and isinstance(served.engine, AnswerLoop):
        return served.release, served.engine
    raise bad_request(f"{served.name} does {served.release.card.task}; use /v1/classify", "model", "wrong_task")


def _choices(body: WritingBody, limits: Limits) -> int:
    if (n := body.n or 1) > limits.choices:
        raise bad_request(f"n: expected at most {limits.choices}, got {n}", "n")
    return n
