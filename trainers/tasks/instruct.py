"""Instruction tuning from columns: a template makes one text of them, with loss on the answer only."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainers.sources import DataProblem, Row
from trainers.spec import Finding
from trainers.splits import Keyed
from trainers.tasks import columns as read
from trainers.tasks.next_token import NextToken, encoded_span
from trainers.tokens import Encoded


@dataclass(frozen=True)
class Instruction:
    """The text before the answer, and the answer with what the template has after it."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class AnswerTemplate:
    """A template around its answer."""

    before: str
    """With columns in braces."""
    columns: tuple[str, ...]
    """Those of `before`, each once."""
    after: str
    """The text that follows the answer, up to the next column."""
    is_followed: bool
    """Whether there is a next column."""


class Instruct(NextToken):
    name = "instruct"

    def check(self, row: Row, columns: Mapping[str, str]) -> Keyed[Instruction] | Finding:
        parts, answer = _parsed(columns)
        before, after = "", ""
        is_after = False
        for literal, name in parts:
            value = "" if name is None else read.text(row, {"text_template": name}, "text_template")
            if isinstance(value, Finding):
                return value
            if not is_after and name == answer:
                before, after, is_after = before + literal, value, True
            elif is_after:
                after += literal + value
            else:
                before += literal + value
        return Keyed(Instruction(before, after), key=(before.strip(), after.strip()), stratum=None)

    def check_all(self, train: Sequence[Keyed[Instruction]], where: str) -> list[Finding]:
        return []

    def encode(
        self, tokenizer: Any, examples: Sequence[Instruction], labels: Sequence[str], max_length: int
    ) -> list[list[Encoded]]:
        """The text ends with the end-of-text token, so that the model learns to stop."""
        batch = tokenizer([e.prompt + e.answer for e in examples], return_offsets_mapping=True)
        end = tokenizer.eos_token_id
        encoded = []
        for ids, offsets, example in zip(batch["input_ids"], batch["offset_mapping"], examples, strict=True):
            # The template's last blank belongs to the answer, in a token with its first letters or in one of its own:
            # who asks leaves it out, for no tokenizer would join it to a word that is not there yet.
            mask = [int(stop > len(example.prompt.rstrip(" "))) for _, stop in offsets]
            if end is not None and ids[-1] != end:
                ids, mask = [*ids, end], [*mask, 1]
            elif end is not None:
                mask[-1] = 1
            encoded.append(encoded_span(tokenizer, ids[:max_length], mask[:max_length]))
        return encoded


def answer_template(columns: Mapping[str, str]) -> AnswerTemplate:
    """What comes before the answer and after it, as who asks for one needs it. Raises `DataProblem`."""
    parts, answer = _parsed(columns)
    place = next(index for index, (_, name) in enumerate(parts) if name == answer)
    before = "".join(_escaped(literal) + ("" if name is None else f"{{{name}}}") for literal, name in parts[:place])
    names = tuple(dict.fromkeys(name for _, name in parts[:place] if name is not None))
    after, is_followed = "", False
    for literal, name in parts[place + 1 :]:
        after, is_followed = after + literal, name is not None
        if is_followed:
            break
    return AnswerTemplate(before + _escaped(parts[place][0]), names, after, is_followed)


def _escaped(literal: str) -> str:
    return literal.replace("{", "{{").replace("}", "}}")


def _parsed(columns: Mapping[str, str]) -> tuple[list[tuple[str, str | None]], str]:
    """A template's parts, and which column is the answer. Raises `DataProblem`."""
    parts = parse_template(columns["text_template"])
    names = [name for _, name in parts if name is not None]
    answer = columns.get("answer", names[-1])
    if answer not in names:
        found = f"got {answer!r}, which the template does not have"
        raise DataProblem([Finding("data.answer", found, f"one of {', '.join(names)}")])
    return parts, answer


def parse_template(template: str) -> list[tuple[str, str | None]]:
    """`User: {input}` to pairs of literal text and the column after it. Raises `DataProblem`."""
    where, expected = "data.text_template", 'for example "User: {input}\\nAssistant: {output}"'
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise DataProblem([Finding(where, f"got {template!r}: {error}", expected)]) from error
    for _, name, form, conversion in parsed:
        if name is not None and (not name or form or conversion or any(mark in name for mark in ".[]")):
            raise DataProblem([Finding(where, f"got {{{name}}}", "plain column names in braces")])
    if not any(name for _, name, _, _ in parsed):
        raise DataProblem([Finding(where, f"got {template!r}, which has no column", expected)])
    return [(literal, name) for literal, name, _, _ in parsed]
