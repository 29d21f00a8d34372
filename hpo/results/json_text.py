"""JSON for people to read and programs to parse: indented, but long lists of records with one record a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

LONG = 100
"""Records: nobody reads more of them as indented text, which takes Python's slow encoder."""


def json_text(value: Any) -> str:
    """A value as JSON."""
    if not isinstance(value, Mapping) or not any(_is_long(item) for item in value.values()):
        return json.dumps(value, indent=2)
    items = [f"  {json.dumps(key)}: {_inner(item)}" for key, item in value.items()]
    return "{\n" + ",\n".join(items) + "\n}"


def _inner(item: Any) -> str:
    if _is_long(item):
        return "[\n" + ",\n".join(f"    {json.dumps(record)}" for record in item) + "\n  ]"
    return json.dumps(item, indent=2).replace("\n", "\n  ")


def _is_long(item: Any) -> bool:
    return isinstance(item, list) and len(item) > LONG
