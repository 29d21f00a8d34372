"""Chat: conversations in the model's own chat template, with loss on assistant turns only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainers.sources import DataProblem, Row, names_of
from trainers.spec import Finding
from trainers.splits import Keyed
from trainers.tasks.next_token import NextToken, encoded_span, mask_of_spans
from trainers.tokens import Encoded

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Conversation:
    messages: list[dict[str, str]]
    weights: tuple[int, ...]
    """0 for an assistant's turn that is read but not learned."""
    where: str


class Chat(NextToken):
    name = "chat"

    def check(self, row: Row, columns: Mapping[str, str]) -> Keyed[Conversation] | Finding:
        name = columns["messages"]
        if name not in row.values:
            return Finding(row.where, f"has no column {name!r} for data.messages", f"the row has: {names_of(row)}")
        messages = row.values[name]
        if why := _refuse(messages):
            return Finding(row.where, why, 'expected [{"role": "user", "content": ...}, {"role": "assistant", ...}]')
        kept = [{"role": m["role"], "content": m["content"]} for m in messages]
        weights = tuple(int(m.get("weight", 1)) for m in messages)
        return Keyed(Conversation(kept, weights, row.where), key=json.dumps(kept), stratum=None)

    def check_all(self, train: Sequence[Keyed[Conversation]], where: str) -> list[Finding]:
        return []

    def encode(
        self, tokenizer: Any, examples: Sequence[Conversation], labels: Sequence[str], max_length: int
    ) -> list[list[Encoded]]:
        if not tokenizer.chat_template:
            raise DataProblem([Finding("model", "its tokenizer has no chat template", "a chat model for task: chat")])
        rendered = [_render(tokenizer, _first_turns(tokenizer, e, max_length), e) for e in examples]
        batch = tokenizer([text for text, _ in rendered], add_special_tokens=False, return_offsets_mapping=True)
        encoded = []
        for ids, offsets, (_, spans) in zip(batch["input_ids"], batch["offset_mapping"], rendered, strict=True):
            mask = mask_of_spans(offsets, spans)
            encoded.append(encoded_span(tokenizer, ids[:max_length], mask[:max_length]))
        return encoded


def _refuse(messages: Any) -> str | None:
    """Why `messages` is no conversation to learn from, or None."""
    if not isinstance(messages, list) or not messages:
        return "messages is not a list of turns"
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            return f"turn {number} has no text content"
        if not message["content"].strip() and message.get("role") != "system":
            return f"turn {number} is empty"
        if message.get("role") not in ROLES:
            return f"turn {number} has the role {message.get('role')!r}, none of {', '.join(ROLES)}"
        if message.get("weight", 1) not in (0, 1):
            return f"turn {number} has the weight {message['weight']!r}, neither 0 nor 1"
    if messages[-1]["role"] != "assistant":
        return f"the last turn is the {messages[-1]['role']}'s, not the assistant's"
    return None


def _first_turns(tokenizer: Any, conversation: Conversation, max_length: int) -> list[dict[str, str]]:
    """The turns that reach into the first `max_length` tokens: rendering is quadratic in the turns, so cut early."""
    messages, count = conversation.messages, 8
    while count < len(messages):
        text = tokenizer.apply_chat_template(messages[:count], tokenize=False)
        if len(tokenizer(text, add_special_tokens=False)["input_ids"]) > max_length:
            break
        count *= 2
    return messages[:count]


def _render(
    tokenizer: Any, messages: list[dict[str, str]], conversation: Conversation
) -> tuple[str, list[tuple[int, int]]]:
    """The text the model sees, and the character spans of what the assistant says, its end of turn included."""
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    spans: list[tuple[int, int]] = []
    ending = None
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or not conversation.weights[index]:
            continue
        before = tokenizer.apply_chat_template(messages[:index], tokenize=False, add_generation_prompt=True)
        said = before + message["content"]
        if ending is None or not text.startswith(said + ending):
            after = tokenizer.apply_chat_template(messages[: index + 1], tokenize=False)
            if not (text.startswith(after) and after.startswith(before)):
                found = "the chat template rewrites earlier turns, so what the assistant said cannot be told apart"
                raise DataProblem([Finding(conversation.where, found, "a template that only appends")])
            # What follows the words of one turn follows those of the next: rendering costs more than looking.
            ending = after[len(said) :] if after.startswith(said) else None
        else:
            after = said + ending
        spans.append((len(before), len(after.rstrip("\n"))))
    return text, spans
