"""Chat: conversations in the model's own chat template, with loss on assistant turns only."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from trainers.data.sources import DataProblem, Row
from trainers.data.splits import Keyed
from trainers.data.tokenizer import chat_template_of, frozen, template_tokens
from trainers.data.tokens import Encoded
from trainers.protocol.events import Finding
from trainers.runtime.card import ReleaseError
from trainers.runtime.chat_template import ChatTemplate
from trainers.runtime.control_tokens import ControlTokens, Spelled
from trainers.tasks.base import Made
from trainers.tasks.conversations import Conversation, read_conversation
from trainers.tasks.next_token import NextToken, encoded_span, mask_of_spans
from trainers.tasks.turns import Lesson, Turns

AT_ONCE = 512
"""Conversations that are tokenized together: the places of their tokens take more memory than the tokens."""


class Chat(NextToken):
    """Conversations in the model's chat template; only the assistant's turns are learned."""

    name = "chat"

    def __init__(self, clock: str = "") -> None:
        """`clock` is the local ISO time for templates that print the date; empty for now."""
        self._clock = clock

    def at(self, clock: str) -> Chat:
        return Chat(clock)

    def check(self, row: Row, columns: Mapping[str, str]) -> Keyed[Conversation] | Finding:
        found = read_conversation(row, columns)
        return found if isinstance(found, Finding) else Keyed(found, key=found.key, stratum=None)

    def input_of(self, row: Keyed[Conversation]) -> Hashable:
        return row.example.asked

    def check_all(self, train: Sequence[Keyed[Conversation]], where: str) -> list[Finding]:
        return []

    def tokenizer_notes(self, tokenizer: Any) -> list[str]:
        if not isinstance(tokenizer.chat_template, Mapping):
            return []
        return [f"the model has chat templates named {', '.join(sorted(tokenizer.chat_template))}: using default"]

    def encode(
        self, tokenizer: Any, examples: Sequence[Conversation], labels: Sequence[str], max_length: int
    ) -> list[Made]:
        """One row of tokens for a conversation, or for each turn where the template writes a last turn differently.

        Every turn is learned as the model has to write it: after the prompt that asks for it.
        """
        source = _source(tokenizer)
        control = ControlTokens(frozen(tokenizer), source)
        try:
            turns = Turns(ChatTemplate(source, template_tokens(tokenizer), self._clock), control, max_length)
        except ReleaseError as error:
            raise DataProblem([Finding("model", str(error), "a chat template that Jinja reads")]) from error
        made: list[Made] = []
        for start in range(0, len(examples), AT_ONCE):
            lessons = [turns.lessons(example) for example in examples[start : start + AT_ONCE]]
            texts = [lesson.text for found in lessons if not isinstance(found, Finding) for lesson in found]
            spelled = iter(control.encode(texts, add_special_tokens=False))
            made += [
                found if isinstance(found, Finding) else _encoded(tokenizer, found, spelled, max_length)
                for found in lessons
            ]
        return made

    def measure_row(self, example: Conversation, encoded: Encoded, labels: Sequence[str]) -> dict[str, Any]:
        """The row, and its conversation: rows of one say less than as many rows of several."""
        return {"conversation": example.digest, **super().measure_row(example, encoded, labels)}


def _source(tokenizer: Any) -> str:
    """The model's chat template. Raises `DataProblem` where it has none."""
    source = chat_template_of(tokenizer)
    if source is not None:
        return source
    found, expected = "its tokenizer has no chat template", "a chat model for task: chat"
    if isinstance(tokenizer.chat_template, Mapping):
        found = f"its chat templates are {', '.join(sorted(tokenizer.chat_template))}"
        expected = "one of them named default"
    raise DataProblem([Finding("model", found, expected)])


def _encoded(tokenizer: Any, lessons: Sequence[Lesson], spelled: Iterator[Spelled], max_length: int) -> list[Encoded]:
    rows: list[Encoded] = []
    for lesson, (ids, offsets, _) in zip(lessons, itertools.islice(spelled, len(lessons)), strict=True):
        mask = mask_of_spans(offsets, lesson.spans)
        rows += encoded_span(tokenizer, ids[:max_length], mask[:max_length])
    return rows
