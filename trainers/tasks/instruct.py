"""Instruction tuning from columns: a template joins them to one text, and only the answer is learned."""

from __future__ import annotations

import string
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainers.data.sources import DataProblem, Row
from trainers.data.splits import Keyed
from trainers.data.tokenizer import frozen
from trainers.data.tokens import Encoded
from trainers.protocol.events import Finding
from trainers.runtime.control_tokens import ControlTokens
from trainers.runtime.inputs import as_text
from trainers.tasks.next_token import NextToken, encoded_span


@dataclass(frozen=True)
class Piece:
    """A part of a filled template: its literal text, or a column's value."""

    text: str
    is_literal: bool


@dataclass(frozen=True)
class Instruction:
    """A row in its template: the pieces before the answer, and the answer with the template's pieces after it."""

    before: tuple[Piece, ...]
    after: tuple[Piece, ...]
    missing: tuple[str, ...] = ()
    """Columns that the row does not have."""

    @property
    def prompt(self) -> str:
        """The text before the answer."""
        return "".join(piece.text for piece in self.before)

    @property
    def answer(self) -> str:
        """The answer and the rest of the template."""
        return "".join(piece.text for piece in self.after)


@dataclass(frozen=True)
class AnswerTemplate:
    """The parts of a template before and after its answer."""

    before: str
    """The template up to the answer, with columns in braces."""
    columns: tuple[str, ...]
    """The columns of `before`, each once."""
    after: str
    """The text that follows the answer, up to the next column."""
    is_followed: bool
    """Whether there is a next column."""


class Instruct(NextToken):
    """Rows in a template of columns; only the answer is learned."""

    name = "instruct"

    def check(self, row: Row, columns: Mapping[str, str]) -> Keyed[Instruction] | Finding:
        """A row in its template; columns before the answer may be empty, as half of Alpaca's inputs, but not all."""
        parts, answer = _parsed(columns)
        before: list[Piece] = []
        after: list[Piece] = []
        asked: dict[str, str] = {}
        for literal, name in parts:
            (after or before).append(Piece(literal, is_literal=True))
            if name is None:
                continue
            is_asked = not after and name != answer
            value = _value(row, name, may_be_empty=is_asked)
            if isinstance(value, Finding):
                return value
            if is_asked:
                asked[name] = value
            (before if is_asked else after).append(Piece(value, is_literal=False))
        if asked and not any(value.strip() for value in asked.values()):
            return Finding(row.where, f"{', '.join(asked)} {'are' if len(asked) > 1 else 'is'} empty", "expected text")
        missing = tuple(name for name in asked if name not in row.values)
        made = Instruction(tuple(before), tuple(after), missing)
        return Keyed(made, key=(made.prompt.strip(), made.answer.strip()), stratum=None)

    def input_of(self, row: Keyed[Instruction]) -> Hashable:
        """The columns before the answer, so that another wording of the template changes no input."""
        asked = tuple(piece.text.strip() for piece in row.example.before if not piece.is_literal)
        return asked or row.example.answer.strip()

    def check_all(self, train: Sequence[Keyed[Instruction]], where: str) -> list[Finding]:
        """A finding for each column of the template that no row has."""
        nowhere = set.intersection(*(set(row.example.missing) for row in train))
        found = "no row has the column {!r} of data.text_template"
        return [Finding(where, found.format(name), "names of columns that rows have") for name in sorted(nowhere)]

    def encode(
        self, tokenizer: Any, examples: Sequence[Instruction], labels: Sequence[str], max_length: int
    ) -> list[list[Encoded]]:
        """Tokens of filled templates, which end with the end-of-text token, so that the model learns to stop.

        Control tokens come only from the template; in a column they are text.
        """
        backend = frozen(tokenizer)
        literals = dict.fromkeys(piece.text for e in examples for piece in e.before if piece.is_literal)
        control = ControlTokens(backend, "\0".join(literals))
        texts = [(_joined(e.before, control), _joined(e.after, control, is_said=True)) for e in examples]
        end = tokenizer.eos_token_id
        encoded = []
        spelled = control.encode([prompt + answer for prompt, answer in texts], add_special_tokens=True)
        for (ids, offsets, _), (prompt, _) in zip(spelled, texts, strict=True):
            # The space before the answer belongs to the answer, in one token with its first letters or alone. A prompt
            # leaves it out, because no tokenizer can join it with a word that is not there yet.
            mask = [int(stop > len(prompt.rstrip(" "))) for _, stop in offsets]
            if end is not None and ids[-1] != end:
                ids, mask = [*ids, end], [*mask, 1]
            elif end is not None:
                mask[-1] = 1
            encoded.append(encoded_span(tokenizer, ids[:max_length], mask[:max_length]))
        return encoded


def _value(row: Row, name: str, *, may_be_empty: bool) -> str | Finding:
    """A column's value as text, numbers and booleans as in JSON; or the finding why it is invalid."""
    if name not in row.values and not may_be_empty:
        has = ", ".join(list(row.values)[:10]) or "nothing"
        return Finding(row.where, f"has no column {name!r} for data.text_template", f"the row has: {has}")
    value = row.values.get(name)
    text = as_text(value)
    if text is None:
        return Finding(row.where, f"{name} is {value!r:.100}", "expected text, a number, true or false")
    if not text.strip() and not may_be_empty:
        return Finding(row.where, f"{name} is {value!r:.100}", "expected text")
    return text


def _joined(pieces: Sequence[Piece], control: ControlTokens, *, is_said: bool = False) -> str:
    return "".join(piece.text if piece.is_literal else control.apart(piece.text, is_said=is_said) for piece in pieces)


def answer_template(columns: Mapping[str, str]) -> AnswerTemplate:
    """The parts of the template that a release needs to ask for an answer. Raises `DataProblem`."""
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
    """A template's parts, and the column of the answer. Raises `DataProblem`."""
    parts = parse_template(columns["text_template"])
    names = [name for _, name in parts if name is not None]
    answer = columns.get("answer", names[-1])
    if answer not in names:
        found = f"got {answer!r}, which the template does not have"
        raise DataProblem([Finding("data.answer", found, f"one of {', '.join(names)}")])
    return parts, answer


def parse_template(template: str) -> list[tuple[str, str | None]]:
    """Split a template such as `User: {input}` into pairs of literal text and the column after it (None at the end).

    Raises `DataProblem` for a template without columns, or with anything but plain names in braces.
    """
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
