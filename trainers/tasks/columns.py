"""Reads the columns of a row: each function returns the value, or the finding why it is invalid."""

from __future__ import annotations

import ast
import contextlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from trainers.data.formats.base import MAX_SHOWN, cut, names_of
from trainers.data.formats.json_text import has_half_characters, is_whole
from trainers.data.sources import Row
from trainers.protocol.events import Finding

_ITEM_PATTERN = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,\[\]'"{}()]+)"""
_ITEM = re.compile(_ITEM_PATTERN)
_FLAT = re.compile(rf"\[\s*(?:{_ITEM_PATTERN}(?:\s*,\s*|\s+|(?=\])))*\]")
"""A list without nested lists; numpy writes no commas, and Python would join its texts."""


def column(row: Row, columns: Mapping[str, str], role: str) -> Any | Finding:
    """The value in the column for `role`, of any type."""
    name = columns[role]
    if name not in row.values:
        return Finding(row.where, f"has no column {name!r} for data.{role}", f"the row has: {names_of(row)}")
    return row.values[name]


def shown(value: object) -> str:
    """The `repr` of a value, cut to a line."""
    return cut(repr(value[: MAX_SHOWN + 1] if isinstance(value, (str, list)) else value))


def listed(value: Any) -> Any:
    """The list that a table's cell contains as text, written by JSON, Python or numpy; any other value unchanged.

    Examples are `["a", "b"]`, `['a' 'b']` and `[0, 1]`. No code is run. None for a list with half a character in it,
    which no tokenizer takes.
    """
    if not isinstance(value, str) or not (value.strip().startswith("[") and value.strip().endswith("]")):
        return value
    found = _written_list(value.strip())
    if found is None:
        return value
    return None if has_half_characters(value) and not is_whole(found) else found


def _written_list(text: str) -> list[Any] | None:
    with contextlib.suppress(ValueError, RecursionError):
        return list(json.loads(text))
    if _FLAT.fullmatch(text):
        return [_item(part) for part in _ITEM.findall(text[1:-1])]
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return found if isinstance(found, list) else None


def _item(written: str) -> Any:
    """One member of a list: a text in quotes, a number, or a bare word."""
    try:
        return ast.literal_eval(written)
    except (ValueError, SyntaxError, MemoryError):
        return written


def text(row: Row, columns: Mapping[str, str], role: str = "text") -> str | Finding:
    """The text in the column for `role`, which must not be empty."""
    value = column(row, columns, role)
    if isinstance(value, Finding):
        return value
    if not isinstance(value, str) or not value.strip():
        return Finding(row.where, f"{columns[role]} is {shown(value)}", "expected text")
    return value


def texts(row: Row, columns: Mapping[str, str]) -> tuple[str, str | None] | Finding:
    """One text, or two where `data.text_pair` names a second column."""
    first = text(row, columns)
    second = text(row, columns, "text_pair") if "text_pair" in columns else None
    if isinstance(first, Finding):
        return first
    return second if isinstance(second, Finding) else (first, second)


def as_label(value: object, where: str, name: str) -> str | Finding:
    """A label as text; numbers and booleans are labels too.

    1.0 becomes 1: tables turn integers into floats where some values are missing.
    """
    if isinstance(value, float) and math.isfinite(value):
        value = int(value) if value.is_integer() else repr(value)
    if not isinstance(value, (str, int)) or not str(value).strip():
        return Finding(where, f"{name} is {shown(value)}", "expected a label: text, a number, true or false")
    return str(value).strip()
