"""JSON for people to read and programs to parse: indented, but long lists of records with one record a line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec

LONG = 100
"""Records: nobody reads more of them as indented text."""
COMPACT, ON_ONE_LINE, INDENTED = -1, 0, 2
"""Layouts: no space at all, one after each comma and colon, and a line for each value."""
_UNCHANGED = frozenset({str, int, bool, type(None)})
"""Types of values that JSON has as they are."""
_NOT_ASCII = re.compile("[^\x00-\x7f]+")


def json_text(value: Any) -> str:
    """A value as JSON in ASCII; numbers that JSON does not have (NaN, infinity) are null."""
    if not isinstance(value, Mapping) or not any(_is_long(item) for item in value.values()):
        return laid_out(value, INDENTED)
    items = [f"  {json.dumps(key)}: {_inner(item)}" for key, item in value.items()]
    return "{\n" + ",\n".join(items) + "\n}"


def laid_out(value: Any, layout: int) -> str:
    """The same in any layout. msgspec takes a fifth of the time of Python's encoder, a tenth of it where indented."""
    try:
        text = msgspec.json.format(msgspec.json.encode(value), indent=layout).decode()
    except (TypeError, UnicodeEncodeError):  # a number of numpy; half of a surrogate pair, which UTF-8 lacks
        separators = (",", ":") if layout == COMPACT else None
        return json.dumps(finite_only(value), indent=max(layout, 0) or None, separators=separators)
    return text if text.isascii() else _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)


def finite_only(value: Any) -> Any:
    """A copy without the numbers that JSON does not have: a metric beside the objective may be NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [item if type(item) in _UNCHANGED else finite_only(item) for item in value]
    if isinstance(value, (dict, Mapping)):  # asking for `dict` first is quicker
        return {key: item if type(item) in _UNCHANGED else finite_only(item) for key, item in value.items()}
    return value


def _inner(item: Any) -> str:
    if _is_long(item):
        return "[\n" + ",\n".join(f"    {laid_out(record, ON_ONE_LINE)}" for record in item) + "\n  ]"
    return laid_out(item, INDENTED).replace("\n", "\n  ")


def _is_long(item: Any) -> bool:
    return isinstance(item, list) and len(item) > LONG
