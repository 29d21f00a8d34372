"""The texts inside a request: found as the model will read them, and put back as filters let them pass."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hpo.serving.gate import Passage
from hpo.serving.refusal import Refusal
from trainers.runtime.control_tokens import BREAK
from trainers.runtime.encoder import Encoder, Reading
from trainers.runtime.inputs import from_json
from trainers.runtime.messages import Message, checked
from trainers.runtime.tag import Tagger

PAIR = ("text", "text_pair")
_OF_MESSAGES = frozenset([
    "content", "name", "tool_calls", "tool_call_id", "thinking", "reasoning_content", "reasoning", "function",
    "arguments", "type", "id", "parameters", "properties", "required", "description",
])  # fmt: skip
"""Keys that messages and tools have: they are no words of anybody."""


def columns_of(release: Encoder, reading: Reading) -> dict[str, str]:
    """The texts of an input to a model that judges, by column; words are one text with blanks between them."""
    if isinstance(release, Tagger):
        return {"text": reading.given[0]}
    texts = [reading.given] if isinstance(reading.given, str) else reading.given
    names = release.card.columns if len(release.card.columns) == len(texts) else PAIR
    return dict(zip(names, texts, strict=False))


async def admit_columns(passage: Passage, columns: Mapping[str, str], param: str) -> dict[str, str]:
    """The texts of an input's columns as they may pass. Raises `Refusal`."""
    admitted = {name: await passage.admit(text, param) for name, text in columns.items()}
    passage.prompt = "\n".join(admitted.values())
    return admitted


async def admit_input(passage: Passage, release: Encoder, given: Any, reading: Reading) -> Any:
    """An input of a model that judges, as it may pass. Raises `Refusal`."""
    columns = columns_of(release, reading)
    if isinstance(release, Tagger) and BREAK in columns["text"] and given != columns["text"]:
        raise ValueError("input: a word has the character U+FDD0, which Unicode reserves; expected words without it")
    admitted = await admit_columns(passage, columns, "input")
    if admitted == columns:
        return given
    if not isinstance(release, Tagger):
        return admitted
    text, places = reading.given
    if given == text:
        return admitted["text"]
    if len(admitted["text"]) != len(text):
        raise Refusal(500, "a filter changed the length of words; it may only replace letters", code="filter_failed")
    return [admitted["text"][start:end] for start, end in places]


def chat_of(given: object) -> dict[str, Any]:
    """The messages and the tools of a chat as its template reads them. Raises `ValueError` for one that is malformed.

    The arguments of calls are objects and not their JSON, whose escapes could hide words.
    """
    messages, tools = checked(given)
    return {"messages": [_with_objects(message) for message in messages], "tools": tools}


def _with_objects(message: Message) -> dict[str, Any]:
    calls = [{**call, "function": _call(call["function"])} if "function" in call else _call(call)
             for call in message.get("tool_calls", ())]  # fmt: skip
    return {**message, "tool_calls": calls} if calls else dict(message)


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    read = from_json(call.get("arguments"))
    return {**call, "arguments": read} if isinstance(read, Mapping) else dict(call)


async def admit_chat(passage: Passage, chat: Mapping[str, Any]) -> dict[str, Any]:
    """A chat as it may pass: all that its template can print of it but the roles. Raises `Refusal`."""
    messages = []
    for message in chat["messages"]:
        rest = {key: value for key, value in message.items() if key != "role"}
        messages.append({"role": message["role"], **await _admit_all(passage, rest, "messages")})
    passage.prompt = "\n".join(message["content"] for message in messages)
    return {"messages": messages, "tools": await _admit_all(passage, chat["tools"], "tools")}


async def _admit_all(passage: Passage, value: Any, param: str) -> Any:
    """Every text and number in lists and mappings, keys too: a template prints them as JSON. Raises `Refusal`."""
    if isinstance(value, str):
        return await passage.admit(value, param)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        admitted = await passage.admit(printed := json.dumps(value), param)
        return value if admitted == printed else admitted
    if isinstance(value, Mapping):
        keys = {key: key if key in _OF_MESSAGES else await passage.admit(key, param) for key in value}
        return {keys[key]: await _admit_all(passage, item, param) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [await _admit_all(passage, item, param) for item in value]
    return value
