"""Chat templates, which run in a sandbox and within bounds, because their source is not trusted."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .card import ReleaseError
from .control_tokens import BREAK
from .inputs import from_json
from .messages import Message, Tools

_MOST_STEPS = 10_000_000
"""Steps of all loops in one rendering together."""
_MOST_CHARACTERS = 1 << 26
"""Characters of one rendering."""


class ChatTemplate:
    """A chat template, which runs in a sandbox because its source is not trusted.

    A rendering has at most `_MOST_STEPS` steps of loops and `_MOST_CHARACTERS` characters. The environment has the same
    options, names and `{% generation %}` tag as transformers'. Raises `ReleaseError` for a template that does not
    parse.
    """

    def __init__(self, source: str, tokens: Mapping[str, Any], clock: str = "") -> None:
        """`tokens` are special tokens by name; `clock` is the local ISO time for `strftime_now`, empty for now."""
        import jinja2
        import jinja2.nodes

        self._tokens = tokens
        environment = _environment(clock)
        try:
            parsed = environment.parse(source)
            for loop in parsed.find_all(jinja2.nodes.For):
                loop.iter = jinja2.nodes.Filter(loop.iter, "_counted", [], [], None, None)
            for joined in parsed.find_all(jinja2.nodes.Concat):
                joined.nodes[0] = jinja2.nodes.Filter(joined.nodes[0], "_bounded", [], [], None, None)
            self._compiled = environment.from_string(parsed)
        except Exception as error:  # the Python code that Jinja generates may not compile
            raise ReleaseError(f"the chat template is damaged: {error}") from error

    def render(self, messages: Sequence[Message], tools: Tools = None, *, asks: bool) -> str:
        """The text of a conversation; with `asks` it ends where the assistant's answer begins.

        Templates get the arguments of tool calls as objects, which most of them write as JSON. A template that refuses
        objects gets them as JSON texts. Raises `ValueError` with the template's own message where it refuses both.
        """
        try:
            return self._tried(_with_arguments(messages, _as_object), tools, asks)
        except ValueError:
            if any("tool_calls" in message for message in messages):
                with contextlib.suppress(ValueError):  # the first refusal says more
                    return self._tried(_with_arguments(messages, _as_json), tools, asks)
            raise

    def _tried(self, messages: Sequence[Message], tools: Tools, asks: bool) -> str:
        try:
            return self._rendered(messages, tools, asks)
        except Exception as error:  # an untrusted template can fail in any way
            reason = " ".join(str(error).replace(BREAK, "").split()) or type(error).__name__
            raise ValueError(f"the chat template refused the messages: {reason:.200}") from error

    def _rendered(self, messages: Sequence[Message], tools: Tools, asks: bool) -> str:
        pieces, length = [], 0
        for piece in self._compiled.generate(
            **self._tokens, messages=messages, tools=tools, documents=None, add_generation_prompt=asks, _steps=_Steps()
        ):
            pieces.append(piece)
            length += len(piece)
            if length > _MOST_CHARACTERS:
                raise ValueError(f"it writes more than {_MOST_CHARACTERS:,} characters")
        return "".join(pieces)


def _bounded(value: Any) -> Any:
    """A value that a template made. Raises `ValueError` where it is too large."""
    size = value.bit_length() if isinstance(value, int) else len(value) if hasattr(value, "__len__") else 0
    if size > (4096 if isinstance(value, int) else _MOST_CHARACTERS):
        raise ValueError("it makes a value that is too large")
    return value


class _Steps:
    """Counts the steps of all loops in one rendering."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self) -> None:
        self._count += 1
        if self._count > _MOST_STEPS:
            raise ValueError(f"its loops take more than {_MOST_STEPS:,} steps")


def _sandbox() -> Any:
    """Jinja's sandbox, with bounds for sums, products and powers too."""
    import jinja2.sandbox

    class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(["+", "*", "**"])

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            sizes = [len(side) if hasattr(side, "__len__") else side for side in (left, right)]
            repeats = operator == "*" and [left, right] != sizes
            # Check these before they are computed.
            if (repeats and math.prod(sizes) > _MOST_CHARACTERS) or (operator == "**" and max(map(abs, sizes)) > 64):
                raise ValueError("it makes a value that is too large")
            return _bounded(super().call_binop(context, operator, left, right))

    return Sandbox


def _environment(clock: str) -> Any:
    import datetime

    import jinja2
    import jinja2.ext

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}  # noqa: RUF012 - jinja2's protocol

        def parse(self, parser: Any) -> Any:
            next(parser.stream)  # the tag marks the assistant's text for training; here it has no effect
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
        return text.replace(f"\\u{ord(BREAK):x}", BREAK)

    def now(form: str) -> str:
        return (datetime.datetime.fromisoformat(clock) if clock else datetime.datetime.now()).strftime(form)

    @jinja2.pass_context
    def counted(context: Any, items: Any) -> Iterator[Any]:
        step = context["_steps"]
        for item in items:
            step()
            yield item

    environment = _sandbox()(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    environment.filters |= {"tojson": to_json, "_counted": counted, "_bounded": _bounded}
    environment.globals |= {"raise_exception": refuse, "strftime_now": now}
    del environment.globals["lipsum"]
    return environment


def _with_arguments(messages: Sequence[Message], convert: Callable[[object], object]) -> list[Message]:
    """Messages with the arguments of their tool calls converted by `convert`."""

    def converted(call: Mapping[str, Any]) -> Mapping[str, Any]:
        if isinstance(call.get("function"), Mapping):
            return {**call, "function": converted(call["function"])}
        return {**call, "arguments": convert(call["arguments"])} if "arguments" in call else call

    return [
        {**m, "tool_calls": [converted(call) for call in m["tool_calls"]]} if "tool_calls" in m else m for m in messages
    ]


def _as_object(arguments: object) -> object:
    parsed = from_json(arguments)
    return parsed if isinstance(parsed, Mapping) else arguments


def _as_json(arguments: object) -> object:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
