"""Reads conversations from rows: OpenAI's and ShareGPT's messages, as lists or JSON text, with or without tools."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainers.data.sources import Row, names_of
from trainers.protocol.events import Finding
from trainers.runtime.inputs import from_json
from trainers.runtime.messages import as_message, as_tools

EXPECTED = 'expected [{"role": "user", "content": ...}, {"role": "assistant", ...}]'


@dataclass(frozen=True)
class Conversation:
    """A row's conversation, which ends with the assistant's turn."""

    messages: list[dict[str, Any]]
    """Messages as templates read them."""
    weights: tuple[int, ...]
    """One for each message; 0 for an assistant's turn that is read but not learned."""
    where: str
    tools: list[dict[str, Any]] | None = None

    @property
    def key(self) -> str:
        """A text that is equal for equal conversations."""
        return json.dumps(self.messages if self.tools is None else [self.tools, self.messages])

    @property
    def digest(self) -> str:
        """16 hex digits that tell it from other conversations."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:16]

    @property
    def asked(self) -> str:
        """A text that is equal for conversations that differ only in what the assistant says; where nobody else says
        anything, `key`."""
        others = [message for message in self.messages if message["role"] != "assistant"]
        is_asked = any(message["role"] != "system" for message in others)
        return json.dumps(others) if is_asked else self.key


def read_conversation(row: Row, columns: Mapping[str, str]) -> Conversation | Finding:
    """The conversation of a row, or the finding why it cannot be learned."""
    name = columns["messages"]
    if name not in row.values:
        has = f"the row has: {names_of(row)}"
        if "conversations" in row.values:
            has = "write `messages: conversations` under data"
        return Finding(row.where, f"has no column {name!r} for data.messages", has)
    try:
        given = _turns(from_json(row.values[name]), row.values.get("system"))
    except ValueError as error:  # a text of JSON may hold half a character
        return Finding(row.where, f"{name} as {error}")
    if not given:
        return Finding(row.where, f"{name} is not a list of turns", EXPECTED)
    messages: list[dict[str, Any]] = []
    for number, turn in enumerate(given, 1):
        message = _message(turn)
        if isinstance(message, str):
            return Finding(row.where, f"turn {number} {message}", EXPECTED)
        messages.append(message)
    if messages[-1]["role"] != "assistant":
        return Finding(row.where, f"the last turn is the {messages[-1]['role']}'s, not the assistant's", EXPECTED)
    if row.values.get("functions"):
        return Finding(row.where, "has functions, which templates do not read", "the same as tools")
    try:
        tools = as_tools(row.values.get("tools"))
    except ValueError as error:
        return Finding(row.where, "tools is not a list of tools", str(error))
    return Conversation(messages, tuple(_weight(turn) for turn in given), row.where, tools)


def _turns(given: Any, system: object) -> list[Any]:
    """The turns of a list, or of a mapping of lists as `datasets` stores it; ShareGPT's `system` comes first.

    Empty where the value has no turns.
    """
    if isinstance(given, Mapping) and all(isinstance(values, list) for values in given.values()):
        is_table = len({len(values) for values in given.values()}) == 1
        given = [dict(zip(given, turn, strict=True)) for turn in zip(*given.values(), strict=True)] if is_table else []
    if not isinstance(given, list) or not given:
        return []
    is_sharegpt = isinstance(given[0], Mapping) and "from" in given[0] and given[0]["from"] != "system"
    if is_sharegpt and isinstance(system, str) and system.strip():
        return [{"from": "system", "value": system}, *given]
    return given


def _weight(turn: Mapping[str, Any]) -> Any:
    """A turn's weight, 1 without one; Parquet has null then."""
    weight = turn.get("weight")
    return 1 if weight is None else weight


def _message(turn: object) -> dict[str, Any] | str:
    """A turn as templates read it, or what is wrong with it."""
    if not isinstance(turn, Mapping):
        return "has no text content"
    try:
        message = as_message(turn)
    except ValueError as error:
        return str(error)
    content = message["content"]
    if not isinstance(content, str):
        return "has no text content"
    if not content.strip() and message["role"] in ("user", "assistant") and "tool_calls" not in message:
        return "is empty"
    if _weight(turn) not in (0, 1):
        return f"has the weight {_weight(turn)!r:.100}, expected 0 or 1"
    return message
