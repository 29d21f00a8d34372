"""Messages of a chat, as templates read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from .inputs import from_json, short

Message: TypeAlias = Mapping[str, Any]
Chat: TypeAlias = str | Sequence[Message] | Mapping[str, Any]
"""A user's text, messages, or both messages and tools: {"messages": [...], "tools": [...]}."""
Tools: TypeAlias = Sequence[Mapping[str, Any]] | None

ROLES = ("system", "user", "assistant", "developer", "tool")
_SHAREGPT = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "observation": "tool",
}  # fmt: skip
"""Roles by their names in ShareGPT and similar formats."""
_REASONING = ("reasoning_content", "thinking", "reasoning")
_READ = ("content", "name", "tool_calls", "tool_call_id", *_REASONING)
"""Keys of a message that templates read, besides its role."""


def as_message(given: Mapping[str, Any]) -> dict[str, Any]:
    """A message as templates read it: without None, which they would print, and with its content's parts joined.

    ShareGPT's `from` and `value` become `role` and `content`. Raises `ValueError`; its message is the end of a sentence
    that begins with the message's place.
    """
    message = without_none(given)
    if "role" not in message and "from" in message:
        message = {"role": message["from"], "content": message.get("value")}
    role = message.get("role")
    role = _SHAREGPT.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        raise ValueError(f"has the role {short(role)}, expected one of {', '.join(ROLES)}")
    if "function_call" in message:
        raise ValueError("has function_call, which templates do not read: write tool_calls")
    kept = {"role": role, "content": None, **{key: message[key] for key in _READ if key in message}}
    kept = {key: value for key, value in kept.items() if key not in _REASONING or isinstance(value, str)}
    if "tool_calls" in kept:
        kept["tool_calls"] = _calls(kept["tool_calls"])
        if not kept["tool_calls"]:
            del kept["tool_calls"]
    if isinstance(kept["content"], list):
        kept["content"] = "".join(_part(part) for part in kept["content"])
    if kept["content"] is None and "tool_calls" in kept:
        kept["content"] = ""
    reasoning = next((kept[key] for key in _REASONING if key in kept), None)
    return kept if reasoning is None else {"thinking": reasoning, **kept, "reasoning_content": reasoning}


def as_tools(given: object) -> list[dict[str, Any]] | None:
    """Tools as templates read them, from a list or its JSON; None without tools. Raises `ValueError`."""
    tools = from_json(given)
    if tools is None or tools in ("", []):
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) and name_of(tool) for tool in tools):
        raise ValueError(f"expected a list of tools, each with a name, got {short(given)}")
    return [without_none(tool) for tool in tools]


def name_of(tool: Mapping[str, Any]) -> str | None:
    """The name of a tool or of a tool call, from `{"function": {"name": ...}}` or `{"name": ...}`; None without one."""
    owner = tool.get("function", tool)
    name = owner.get("name") if isinstance(owner, Mapping) else None
    return name if isinstance(name, str) else None


def without_none(value: Any) -> Any:
    """A value without keys whose value is None, at any depth: Parquet adds them for every key of another row."""
    if isinstance(value, Mapping):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return [without_none(item) for item in value] if isinstance(value, (list, tuple)) else value


def _calls(given: object) -> list[dict[str, Any]]:
    calls = from_json(given)
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) and name_of(call) for call in calls):
        raise ValueError(f"has tool_calls {short(given)}, expected a list of calls, each with the name of a function")
    return [dict(call) for call in calls]


def _part(part: object) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else part
    raise ValueError(f"has a content part of type {short(kind)}: only text parts are supported")


def checked(chat: object) -> tuple[list[Message], Tools]:
    """The messages and the tools of a chat."""
    tools = None
    if isinstance(chat, Mapping):
        tools, chat = as_tools(chat.get("tools")), chat.get("messages")
    if isinstance(chat, str) or not isinstance(chat, Sequence):
        raise ValueError(f"expected a text or a list of messages, got {short(chat)}")
    messages: list[Message] = []
    for index, message in enumerate(chat):
        if not isinstance(message, Mapping) or not isinstance(message.get("role", message.get("from")), str):
            raise ValueError(f'message {index}: expected {{"role": ..., "content": ...}}, got {short(message)}')
        try:
            messages.append(as_message(message))
        except ValueError as error:
            raise ValueError(f"message {index} {error}") from None
        if not isinstance(messages[-1]["content"], str):
            raise ValueError(f"message {index}: content must be a text, got {short(message.get('content'))}")
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        raise ValueError("the last message must have the role user or tool")
    return messages, tools


def turns_of(messages: Sequence[Message]) -> tuple[list[Message], list[int]]:
    """The system message that stays, and where the rest may begin: after it, or at any later message of the user."""
    head = [message for message in messages[:1] if message["role"] in ("system", "developer")]
    later = [i for i, message in enumerate(messages) if message["role"] == "user" and i > len(head)]
    return head, [len(head), *later]
