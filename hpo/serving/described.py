"""What answers look like, for the OpenAPI page alone: they are written elsewhere, and tests hold them to this."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Error(BaseModel):
    """What is wrong with a request."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """Any answer that is not 200."""

    error: Error


class Usage(BaseModel):
    """Tokens read, and where a model writes, tokens written."""

    prompt_tokens: int
    completion_tokens: int = 0
    total_tokens: int


class Filtered(BaseModel):
    """What filters decided, by category; not there without filters."""

    content_filter_results: dict[str, Any] = {}


class Judgement(Filtered):
    """What a model says of one input; its task decides which of these there are."""

    model_config = ConfigDict(extra="forbid")

    index: int
    label: str = ""
    score: float = 0
    scores: dict[str, float] = {}
    labels: list[str] = []
    value: float = 0
    entities: list[dict[str, Any]] = []
    tags: list[dict[str, Any]] = []
    embedding: list[float] = []


class ClassifyAnswer(BaseModel):
    """Of `/v1/classify`."""

    object: Literal["list"]
    model: str
    data: list[Judgement]
    usage: Usage


class Vector(Filtered):
    """Of one text."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingAnswer(BaseModel):
    """Of `/v1/embeddings`."""

    object: Literal["list"]
    model: str
    data: list[Vector]
    usage: Usage


class Message(BaseModel):
    """What the model says in a chat."""

    role: Literal["assistant"]
    content: str


class ChatChoice(Filtered):
    """One answer to a chat."""

    index: int
    message: Message
    logprobs: dict[str, Any] | None
    finish_reason: str


class CompletionChoice(Filtered):
    """One answer to a prompt."""

    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: str


class Written(BaseModel):
    """What all answers of writing models have."""

    id: str
    created: int
    model: str
    usage: Usage
    prompt_filter_results: list[dict[str, Any]] = []


class ChatAnswer(Written):
    """Of `/v1/chat/completions`."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class CompletionAnswer(Written):
    """Of `/v1/completions`."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]


class ModelEntry(BaseModel):
    """A model of this server."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None
    hash: str | None
    version: str | None
    """In the registry."""
    task: str
    variant: str
    labels: list[str]
    columns: list[str]
    max_model_len: int
    writes: bool
    has_chat_template: bool


class ModelList(BaseModel):
    """Of `/v1/models`."""

    object: Literal["list"]
    data: list[ModelEntry]


class ModelDeleted(BaseModel):
    """Of `/v1/models/unload`."""

    id: str
    object: Literal["model"]
    deleted: bool


class Status(BaseModel):
    """Of `/health` and `/ready`."""

    status: str


REFUSED: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "The request is wrong."},
    "5XX": {"model": ErrorAnswer, "description": "The queue is full (503, with Retry-After), or the model failed."},
}
_STREAM = {"text/event-stream": {"schema": {"type": "string"}}}


def answers(model: type[BaseModel], *, streams: bool = False) -> dict[int | str, dict[str, Any]]:
    """The answers of a route: `responses` as FastAPI takes them."""
    content = {"content": _STREAM} if streams else {}
    return {200: {"model": model, **content}, **REFUSED}
