"""Parses JSON without losing anything: repeated names and lone surrogates are problems."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from trainers.data.formats.base import Entry, Row, names
from trainers.protocol.events import Finding

MAX_DEPTH = 100
"""The deepest nesting of lists and objects; Python fails at some hundreds, depending on the caller's depth."""
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
_BLANK = re.compile(r"\s*")


class NotJson(Exception):
    """A text is not JSON; `line` and `column` count from 1, or are 0 where they are unknown."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        self.line, self.column = line, column
        super().__init__(message)


class _Ambiguous(dict[str, Any]):
    """An object with a repeated name, of which only the last value is kept."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        given = [name for name, _ in pairs]
        self.twice = [name for name in self if given.count(name) > 1]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    return value if len(value) == len(pairs) else _Ambiguous(pairs)


class Parser:
    """Parses texts; NaN, which pandas writes for missing values, is read as null and counted in `nans`."""

    def __init__(self) -> None:
        self.nans = 0
        self._decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=self._constant)

    def parse(self, text: str) -> Any:
        """The value of a text. Raises `NotJson`."""
        values = self.parse_each(text)
        try:
            _, value = next(values)
        except StopIteration:
            raise NotJson("Expecting value", 1, 1) from None
        for line, _ in values:
            raise NotJson("Extra data", line)
        return value

    def parse_each(self, text: str) -> Iterator[tuple[int, Any]]:
        """Yield the values in a text one after the other, each with its line. Raises `NotJson`."""
        at, line, counted = _after_blanks(text, 0), 1, 0
        while at < len(text):
            line, counted = line + text.count("\n", counted, at), at
            try:
                value, end = self._decoder.raw_decode(text, at)
            except json.JSONDecodeError as error:
                raise NotJson(error.msg, error.lineno, error.colno) from error
            except RecursionError as error:
                raise NotJson("lists or objects that are nested thousands deep") from error
            except ValueError as error:  # the only other cause: Python does not read longer numbers
                raise NotJson("a number of more than 4,300 digits") from error
            yield line, value
            at = _after_blanks(text, end)

    def _constant(self, name: str) -> float | None:
        if name != "NaN":
            return float(name)
        self.nans += 1
        return None


def _after_blanks(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return at if match is None else match.end()


def has_half_characters(text: str) -> bool:
    """Whether a JSON text may contain a lone surrogate; pairs of surrogates look the same."""
    return _HALF_CHARACTER.search(text) is not None


def row_of(value: Any, where: str, expected: str, may_be_half: bool) -> Entry:
    """A JSON value as a row, or the findings why it is invalid.

    `may_be_half` says that the text may contain lone surrogates, which no tokenizer accepts.
    """
    if not isinstance(value, dict) and not _is_spacy_example(value):
        return [Finding(where, f"is {type(value).__name__}, not an object", expected)]
    twice: list[str] = []
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        twice += [name for one in level for name in named_twice(one)]
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            break
    if level:
        return [Finding(where, f"has lists or objects nested more than {MAX_DEPTH} deep", "flatter values")]
    if twice:
        return [Finding(where, f"has several values with the same name: {names(twice)}", "each name once")]
    if may_be_half and not is_whole(value):
        return [Finding(where, "contains half a character (a lone surrogate such as \\ud83d)", "whole characters")]
    return Row(where, value if isinstance(value, dict) else {"text": value[0], **value[1]})


def named_twice(value: Any) -> list[str]:
    """The names that occur more than once in an object."""
    return value.twice if isinstance(value, _Ambiguous) else []


def is_whole(value: Any) -> bool:
    """Whether a value has no lone surrogate; not one that JSON cannot hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, TypeError):
        return False
    return True


def _is_spacy_example(value: Any) -> bool:
    """`["a text", {"entities": [[0, 1, "NAME"]]}]`, as spaCy's training data was written for years."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], dict)
        and "entities" in value[1]
    )
