"""Finds what a model learns from a conversation: its rendered text, and the assistant's parts of it.

A turn is learned as the model will have to write it: after the prompt that a release renders from the turns before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainers.protocol.events import Finding
from trainers.runtime.chat_template import ChatTemplate
from trainers.runtime.control_tokens import ControlTokens
from trainers.runtime.messages import name_of
from trainers.tasks.conversations import Conversation

MOST_EXACT = 256
"""The most turns of a conversation that are rendered separately: rendering all would take quadratic time."""
ALL_EXACT = 32
"""Up to this many turns of the assistant, each is rendered separately. In a longer conversation a turn with the same
surroundings as an earlier one is found by them."""
_MARK = re.compile("\ufdd1([^\ufdd2]*)\ufdd2")
"""A name between two characters that Unicode reserves for internal use; it shows where a text went in a rendering."""


@dataclass(frozen=True)
class Lesson:
    """A text to learn from, with the parts of it that are learned."""

    text: str
    """The text, in which control tokens that people wrote are split (see `ControlTokens`)."""
    spans: list[tuple[int, int]]
    """Characters that are learned: the assistant's text and its end of turn."""


@dataclass(frozen=True)
class Surroundings:
    """The template's text around an answer of the assistant."""

    asked: str
    """The end of the prompt."""
    head: str
    """The template's text at the beginning of the answer."""
    tail: str
    """The template's text after the answer, up to the next turn."""


class Unusable(Exception):
    """Nothing can be learned from a conversation; it says what is wrong, and in `expected` what would be right."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(found)
        self.expected = expected


class Turns:
    """Finds what a model learns from conversations."""

    def __init__(self, template: ChatTemplate, control: ControlTokens, max_length: int) -> None:
        self._template = template
        self._control = control
        self._max_length = max_length

    def lessons(self, conversation: Conversation) -> list[Lesson] | Finding:
        """The texts to learn from, or the finding why there are none.

        There is one text where the template only appends; else one more for each turn that the template writes
        differently when it is the last. Nothing beyond `max_length` tokens is read. The time is linear in the number of
        turns: above `ALL_EXACT` turns of the assistant at most `MOST_EXACT` are rendered separately, and a conversation
        that needs more is refused.
        """
        try:
            return _Reading(self._template, self._first_turns(conversation), conversation.weights).lessons()
        except Unusable as problem:
            return Finding(conversation.where, str(problem), problem.expected)

    def _first_turns(self, conversation: Conversation) -> _Turns:
        """The turns within the first `max_length` tokens, up to a turn of the assistant."""
        messages = self._control.in_messages(conversation.messages)
        turns, count = _Turns(messages, self._control.apart(conversation.tools)), 8
        while count < len(messages):
            try:
                text = turns.rendered(self._template, count, asks=False)
            except Unusable:  # perhaps the template only refuses a conversation that is cut here
                text = ""
            (spelled,) = self._control.encode([text], add_special_tokens=False)
            if len(spelled.ids) > self._max_length:
                break
            count *= 2
        while count < len(messages) and messages[count - 1]["role"] != "assistant":
            count += 1
        return turns.first(count)


@dataclass(frozen=True)
class _Turns:
    """The messages and tools of a conversation as they go into a template."""

    messages: Sequence[Any]
    tools: Any

    def first(self, count: int) -> _Turns:
        return _Turns(self.messages[:count], self.tools)

    def rendered(self, template: ChatTemplate, count: int, *, asks: bool) -> str:
        try:
            return template.render(self.messages[:count], self.tools, asks=asks)
        except ValueError as error:
            raise Unusable(str(error), "a conversation that the model's chat template accepts") from error

    def marked(self) -> _Turns:
        """The turns with a mark after each text and each tool's name, and around the assistant's texts."""
        messages = []
        for number, message in enumerate(self.messages, 1):
            changed = dict(message)
            if message["content"].strip():
                before = _mark(number) if message["role"] == "assistant" else ""
                changed["content"] = f"{before}{message['content']}{_mark(number)}"
            if message.get("reasoning_content"):
                marked = f"{message['reasoning_content']}{_mark(f'reasoning {number}')}"
                changed |= {"reasoning_content": marked, "thinking": marked}
            if "tool_calls" in message:
                changed["tool_calls"] = [_with_marked_name(call, f"call {number}") for call in message["tool_calls"]]
            messages.append(changed)
        tools = self.tools and [_with_marked_name(tool, "tool") for tool in self.tools]
        return _Turns(messages, tools)


def _mark(name: object) -> str:
    return f"\ufdd1{name}\ufdd2"


def _with_marked_name(tool: dict[str, Any], kind: str) -> dict[str, Any]:
    if "function" in tool:
        return {**tool, "function": _with_marked_name(tool["function"], kind)}
    return {**tool, "name": f"{tool['name']}{_mark(f'{kind} {name_of(tool)}')}"}


class _Reading:
    """One conversation, rendered."""

    def __init__(self, template: ChatTemplate, turns: _Turns, weights: Sequence[int]) -> None:
        self._template = template
        self._turns = turns
        self._whole = turns.rendered(template, len(turns.messages), asks=False)
        self._learned = [i for i, m in enumerate(turns.messages) if m["role"] == "assistant" and weights[i]]
        self._known: list[Surroundings] = []
        marked = turns.marked().rendered(template, len(turns.messages), asks=False)
        self._refuse_left_out(set(_MARK.findall(marked)))
        self._words = _places(marked) if _MARK.sub("", marked) == self._whole else {}

    def lessons(self) -> list[Lesson]:
        spans: list[tuple[int, int]] = []
        alone: list[Lesson] = []
        exact = 0
        for ordinal, index in enumerate(self._learned):
            span = None
            if len(self._learned) > ALL_EXACT and not self._is_sample(ordinal):
                span = self._found_by_surroundings(index)
            if span is None:
                exact += 1
                if exact > MOST_EXACT:
                    has = f"has {len(self._learned):,} turns of the assistant, and the chat template writes"
                    enough = f"at most {MOST_EXACT} of them: split it into several conversations"
                    raise Unusable(f"{has} the last one differently from the others", enough)
                start, said = self._rendered_alone(index)
                span = (start, len(said.rstrip("\n")))
                if not self._whole.startswith(said):
                    alone.append(Lesson(said, [span]))
                    continue
                self._remember(index, start, said)
            spans.append(span)
        return [*alone, *([Lesson(self._whole, spans)] if spans else [])]

    def _is_sample(self, ordinal: int) -> bool:
        """Whether a turn is always rendered separately: the first, second, third, fifth, ninth, ... and the last."""
        return ordinal & (ordinal - 1) == 0 or ordinal == len(self._learned) - 1

    def _rendered_alone(self, index: int) -> tuple[int, str]:
        """The start of a turn of the assistant, and the rendered conversation up to and with that turn."""
        said = self._turns.rendered(self._template, index + 1, asks=False)
        try:
            prompt = self._turns.rendered(self._template, index, asks=True)
        except Unusable:
            if self._is_asked(index):
                raise
            prompt = None  # the assistant speaks first, without a question
        if prompt is not None and said.startswith(prompt):
            return len(prompt), said
        if not self._is_asked(index):
            marked = self._turns.first(index + 1).marked().rendered(self._template, index + 1, asks=False)
            if index in (places := _places(marked)) and _MARK.sub("", marked) == said:
                return places[index][0], said
        raise self._unlike(index, prompt or "", said)

    def _is_asked(self, index: int) -> bool:
        return any(message["role"] in ("user", "tool") for message in self._turns.messages[:index])

    def _unlike(self, index: int, prompt: str, said: str) -> Unusable:
        """Why a turn does not begin with the text that asks for it."""
        before = self._turns.rendered(self._template, index, asks=False) if self._is_asked(index) else ""
        if before and prompt.startswith(before) and said.startswith(before):
            asked = prompt[len(before) :]
            found = f"the chat template asks for an answer with {asked!r:.100}, but turn {index + 1} does not begin so"
            return Unusable(
                found, "reasoning_content in that turn, if the template asks for reasoning, or another model"
            )
        found = f"the chat template rewrites earlier turns, so the assistant's text in turn {index + 1}"
        return Unusable(f"{found} cannot be located", "a template that only appends")

    def _remember(self, index: int, start: int, said: str) -> None:
        """Store the surroundings of a turn that was rendered, to find other turns by them."""
        if len(self._learned) <= ALL_EXACT or not self._is_plain(index) or not index:
            return
        first, end = self._words[index]
        before = self._turns.rendered(self._template, index, asks=False)
        around = Surroundings(self._whole[len(before) : start], self._whole[start:first], self._whole[end : len(said)])
        if around not in self._known:
            self._known.append(around)

    def _found_by_surroundings(self, index: int) -> tuple[int, int] | None:
        """The span of a turn with the same surroundings as an earlier one; None where they differ."""
        if not self._is_plain(index):
            return None
        first, end = self._words[index]
        for around in self._known:
            before = f"{around.asked}{around.head}"
            if self._whole.endswith(before, 0, first) and self._whole.startswith(around.tail, end):
                return first - len(around.head), end + len(around.tail.rstrip("\n"))
        return None

    def _is_plain(self, index: int) -> bool:
        """Whether a turn has only text, and the text is in the rendering."""
        return index in self._words and self._turns.messages[index].keys() == {"role", "content"}

    def _refuse_left_out(self, shown: set[str]) -> None:
        """Raise `Unusable` for a turn or a tool that the template does not write."""
        for number, message in enumerate(self._turns.messages, 1):
            is_said = message["role"] == "assistant"
            if message["content"].strip() and not is_said and str(number) not in shown:
                raise _left_out(f"turn {number} (role {message['role']})")
            for call in message.get("tool_calls", ()):
                if f"call {number} {name_of(call)}" not in shown:
                    raise _left_out(f"the call of {name_of(call)!r:.100} in turn {number}")
        for tool in self._turns.tools or ():
            if f"tool {name_of(tool)}" not in shown:
                raise _left_out(f"the tool {name_of(tool)!r:.100}")
        last = len(self._turns.messages)
        if self._turns.messages[-1].get("reasoning_content") and f"reasoning {last}" not in shown:
            raise _left_out(f"the reasoning of turn {last}")


def _left_out(what: str) -> Unusable:
    return Unusable(f"the chat template leaves out {what}", "a model whose template writes it, or data without it")


def _places(marked: str) -> dict[int, tuple[int, int]]:
    """The place of each turn's text between its two marks, after the marks are removed."""
    places: dict[int, tuple[int, int]] = {}
    opened: dict[str, int] = {}
    taken = 0
    for mark in _MARK.finditer(marked):
        place, name = mark.start() - taken, mark[1]
        taken += mark.end() - mark.start()
        if name in opened:
            places[int(name) - 1] = (opened.pop(name), place)
        elif name.isdigit():
            opened[name] = place
    return places
