"""The bodies of requests: OpenAI's, and that of `/v1/classify`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from hpo.quoting import clipped
from hpo.serving.answer import Wish
from hpo.serving.refusal import bad_request
from hpo.serving.sampling import Sampling

_Text = Annotated[str, Field(max_length=4 << 20)]
_MOST_STOPS, _LONGEST_STOP = 4, 400
"""Each of an answer's tokens is compared with every beginning of every stop string."""


class Body(BaseModel):
    """What all bodies have in common. Keys that mean nothing here are ignored, as OpenAI's clients expect."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    model: str | None = None
    """May be left out where the server has one model."""


class ClassifyBody(Body):
    """Of `/v1/classify`."""

    input: _Text | dict[str, Any] | list[Any]
    """A text or a mapping of columns, or a list of them: what `hpo predict` takes. Words are a list in a list."""

    @property
    def inputs(self) -> list[Any]:
        """The inputs, as a list."""
        return self.input if isinstance(self.input, list) else [self.input]


class EmbeddingBody(Body):
    """Of `/v1/embeddings`."""

    input: _Text | list[_Text]
    encoding_format: Literal["float", "base64"] = "float"
    """Base64 is of float32 numbers, the least significant byte first."""

    @property
    def inputs(self) -> list[str]:
        """The texts, as a list."""
        return self.input if isinstance(self.input, list) else [self.input]


class StreamOptions(BaseModel):
    """Of a streamed answer."""

    include_usage: bool = False


class JsonSchema(BaseModel):
    """Of `response_format`. `name` and `strict` change nothing: every answer keeps to its schema."""

    schema_: dict[str, Any] | None = Field(None, alias="schema")
    name: str | None = None
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """What an answer must be."""

    type: str
    json_schema: JsonSchema | None = None

    @property
    def wanted(self) -> dict[str, Any] | None:
        """The schema of the answer; None for any text. Raises `Refusal`."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return {"type": "object"}
        if self.type != "json_schema":
            found = f"expected text, json_object or json_schema, got {clipped(ascii(self.type))}"
            raise bad_request(f"response_format.type: {found}", "response_format")
        if self.json_schema is None or self.json_schema.schema_ is None:
            raise bad_request("response_format.json_schema.schema is missing", "response_format")
        return self.json_schema.schema_


class WritingBody(Body):
    """What the bodies of writing models have in common."""

    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    stop: _Text | list[_Text] | None = None
    n: int | None = Field(None, ge=1)
    response_format: ResponseFormat | None = None

    harmless: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "logit_bias": ({},),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "tool_choice": ("none", "auto"),
        "echo": (False,),
        "best_of": (1,),
        "num_beams": (1,),
        "suffix": ("",),
        "modalities": (["text"],),
    }
    """Keys that change an answer and are not built, with the values that ask for nothing."""

    def wish(self, max_tokens: int | None, logprobs: int | None) -> Wish:
        """What is wanted of each answer. Without a temperature an answer is greedy, as the release was measured.

        Raises `Refusal` for a key that is not built, and for stop strings that are empty, too long or too many.
        """
        for name, values in self.harmless.items():
            given = (self.model_extra or {}).get(name)
            if given is not None and given not in values:
                raise bad_request(f"{name} is not supported", name, "unsupported_parameter")
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > _MOST_STOPS or not all(0 < len(stop) <= _LONGEST_STOP for stop in stops):
            found = f"expected up to {_MOST_STOPS} texts, each of 1 to {_LONGEST_STOP} characters"
            raise bad_request(f"stop: {found}", "stop")
        temperature = self.temperature if self.temperature is not None else 0.0 if self.top_p is None else 1.0
        top_p = 1.0 if self.top_p is None else self.top_p
        return Wish(max_tokens, Sampling(temperature, top_p, self.seed), tuple(stops), logprobs)


class ChatBody(WritingBody):
    """Of `/v1/chat/completions`."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)

    @property
    def chat(self) -> dict[str, Any]:
        """The messages and the tools, as the runtime takes them."""
        wants_tools = self.tools and (self.model_extra or {}).get("tool_choice") != "none"
        return {"messages": self.messages, "tools": self.tools if wants_tools else None}

    @property
    def wanted(self) -> Wish:
        """What is wanted of each answer. Raises `Refusal`."""
        if self.top_logprobs and not self.logprobs:
            raise bad_request("top_logprobs: expected logprobs: true with it", "top_logprobs")
        most = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        return self.wish(most, (self.top_logprobs or 0) if self.logprobs else None)


class CompletionBody(WritingBody):
    """Of `/v1/completions`."""

    prompt: _Text | dict[str, Any] | list[_Text | dict[str, Any]]
    """A text, or where the template has several columns a mapping from column to text; or a list of them."""
    logprobs: int | None = Field(None, ge=0, le=20)
    num_beams: int | None = Field(None, ge=1)
    """Of text-to-text: how many answers are searched side by side, as transformers' key of that name."""

    @property
    def prompts(self) -> list[Any]:
        """The prompts, as a list."""
        return self.prompt if isinstance(self.prompt, list) else [self.prompt]

    @property
    def wanted(self) -> Wish:
        """What is wanted of each answer. Raises `Refusal`."""
        return self.wish(self.max_tokens, self.logprobs)
