"""Inputs as people give them: texts, JSON, columns; what is not text is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .card import Card


def parts_of(given: object, where: str, card: Card) -> dict[str, str]:
    """An input's text for each of the card's columns. Raises `ValueError` where one is missing."""
    columns = card.columns
    if isinstance(given, str):
        if len(columns) <= 1:
            return dict.fromkeys(columns, given)
        given = parsed_json(given)
    wanted = "a text" if len(columns) <= 1 else f"texts for {', '.join(columns)}, as a mapping or its JSON"
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: expected {wanted}, got {type(given).__name__}")
    fills_template = card.prompt_template is not None
    read: dict[str, Any] = {name: given.get(name) for name in columns}
    read = {name: as_text(value) for name, value in read.items()} if fills_template else read
    texts = {name: value for name, value in read.items() if isinstance(value, str)}
    if wrong := [name for name in columns if name not in texts]:
        raise ValueError(f"{where}: expected {wanted}; not a text: {', '.join(wrong)}")
    if fills_template and columns and not any(text.strip() for text in texts.values()):
        raise ValueError(f"{where}: expected {wanted}; got empty {' and '.join(columns)}")
    return texts


def read_input(given: Any, where: str, task: str) -> Any:
    """An input with a chat's JSON parsed.

    Raises `ValueError` for an empty text, and for one that is not valid (see `_refuse_invalid_text`).
    """
    if isinstance(given, str):
        if not given.strip() and task != "token-classification":  # a text without words has no entities
            raise ValueError(f"{where}: is empty; expected a text of at least one token")
        if task == "chat" and given.lstrip().startswith(("[{", "{")):
            parsed = parsed_json(given)
            is_chat = isinstance(parsed, list) or (isinstance(parsed, Mapping) and "messages" in parsed)
            given = parsed if is_chat else given
    _refuse_invalid_text(given, where)
    return given


def _refuse_invalid_text(given: object, where: str) -> None:
    """Raise `ValueError` for NUL and for lone surrogates, which bytes that are not UTF-8 become too."""
    if isinstance(given, str):
        wrong = next((i for i, letter in enumerate(given) if letter == "\0" or "\ud800" <= letter <= "\udfff"), None)
        if wrong is not None:
            what = "NUL" if given[wrong] == "\0" else "half a character (a lone surrogate, or a byte that is not UTF-8)"
            raise ValueError(f"{where}: character {wrong + 1} is {what}; expected text in UTF-8")
    elif isinstance(given, Mapping):
        for value in given.values():
            _refuse_invalid_text(value, where)
    elif isinstance(given, Sequence) and not isinstance(given, bytes):
        for value in given:
            _refuse_invalid_text(value, where)


def parsed_json(text: str) -> object:
    """The value of a JSON text, or the text itself where it is not JSON. Raises `ValueError` for invalid characters."""
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    _refuse_invalid_text(parsed, "JSON")
    return parsed


def from_json(value: object) -> object:
    """The value of a JSON text; any other value, and text that is not JSON, unchanged."""
    return parsed_json(value) if isinstance(value, str) else value


def as_text(value: object) -> str | None:
    """The text for a value of a template's column: empty for null, numbers and booleans as in JSON.

    None for a value that has no text, such as a list or NaN.
    """
    if value is None or isinstance(value, str):
        return value or ""
    is_number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return json.dumps(value) if is_number else None


def short(value: object) -> str:
    """The beginning of a value, for a message."""
    return f"{value!r:.100}"
