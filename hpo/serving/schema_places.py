"""Where a JSON schema is wrong: llguidance says what it cannot do, but not where it has found it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_SECONDS = 1.0
"""How long to look; after that, the place is as narrow as it is by then."""
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose value has schemas by name."""
_NO_SCHEMA = ("enum", "const", "default", "examples")


def blamed(schema: Mapping[str, Any], problem: str, problem_of: Callable[[Mapping[str, Any]], str]) -> list[str]:
    """The path from a schema to the smallest part that has this problem too; `problem_of` compiles a part."""
    ends_at = time.monotonic() + _SECONDS
    shared = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    place: list[str] = []
    part: Mapping[str, Any] | None = schema
    while part is not None:
        inner, part = part, None
        for path, child in _parts(inner):
            if time.monotonic() > ends_at:
                return place
            # A part of the definitions would bring what it is a part of along with it.
            around = {} if path[0] in shared else shared
            if problem_of({**around, **child}) == problem:
                place, part = [*place, *path], child
                break
    return place


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[list[str], Mapping[str, Any]]]:
    """The schemas right below one, each with its path."""
    for key, value in schema.items():
        named = value if key in _BY_NAME else {}
        if isinstance(value, list) and key not in _NO_SCHEMA:
            named = {str(number): item for number, item in enumerate(value)}
        elif isinstance(value, Mapping) and key not in (*_BY_NAME, *_NO_SCHEMA):
            yield [key], value
        if isinstance(named, Mapping):
            for name, child in named.items():
                if isinstance(child, Mapping):
                    yield [key, name], child
