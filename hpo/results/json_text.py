"""JSON for people to read and programs to parse: indented, but long lists of records with one record a line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

LONG = 100
"""Records: nobody reads more of them as indented text, which takes Python's slow encoder."""
_UNCHANGED = frozenset({str, int, bool, type(None)})
"""Types of values that JSON has as they are."""


def json_text(value: Any) -> str:
    """A value as JSON; numbers that JSON does not have (NaN, infinity) are null."""
    try:
        return _json_text(value)
    except ValueError:  # rare, and the copy of 10,000 trials would take as long as their text
        return _json_text(finite_only(value))


def finite_only(value: Any) -> Any:
    """A copy without the numbers that JSON does not have: a metric beside the objective may be NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [item if type(item) in _UNCHANGED else finite_only(item) for item in value]
    if isinstance(value, (dict, Mapping)):  # asking for `dict` first is quicker
        return {key: item if type(item) in _UNCHANGED else finite_only(item) for key, item in value.items()}
    return value


def _json_text(value: Any) -> str:
    if not isinstance(value, Mapping) or not any(_is_long(item) for item in value.values()):
        return json.dumps(value, indent=2, allow_nan=False)
    items = [f"  {json.dumps(key)}: {_inner(item)}" for key, item in value.items()]
    return "{\n" + ",\n".join(items) + "\n}"


def _inner(item: Any) -> str:
    if _is_long(item):
        return "[\n" + ",\n".join(f"    {json.dumps(record, allow_nan=False)}" for record in item) + "\n  ]"
    return json.dumps(item, indent=2, allow_nan=False).replace("\n", "\n  ")


def _is_long(item: Any) -> bool:
    return isinstance(item, list) and len(item) > LONG
