"""Decodes values that the hub's `datasets` stores differently: classes as numbers, and any value as JSON.

The metadata of a file's schema says how a column is stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

NO_CLASS = -1
"""The number that data sets on the hub give to rows with a hidden class, as in many test sets."""
Decoder = Callable[[Any], Any]
"""Stored value -> actual value. Raises `Undecodable`."""


class Undecodable(Exception):
    """A stored value is invalid; it says what was found and what would be right."""

    def __init__(self, found: str, expected: str) -> None:
        self.found, self.expected = found, expected
        super().__init__(found)


def declared_features(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """The features that `datasets` declares in a schema's metadata; empty without them."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):  # written by another program or version
        return {}
    return features if isinstance(features, dict) else {}


def decoders(features: Mapping[str, Any]) -> dict[str, Decoder]:
    """The decoder of each column with values, also nested ones, that are stored differently."""
    return {column: decoder for column, feature in features.items() if (decoder := _decoder(feature)) is not None}


def _decoder(feature: Any) -> Decoder | None:
    if isinstance(feature, list):  # [feature] is a list of it
        return _of_list(_decoder(feature[0])) if len(feature) == 1 else None
    if not isinstance(feature, dict):
        return None
    kind = feature.get("_type")
    if kind == "ClassLabel" and isinstance(feature.get("names"), list):
        return _of_class(feature["names"])
    if kind == "Json":
        return _of_json
    if kind in ("Sequence", "List", "LargeList"):
        return _of_list(_decoder(feature.get("feature")))
    return None if isinstance(kind, str) else _of_struct(feature)


def _of_class(names: list[str]) -> Decoder:
    def decode(value: Any) -> Any:
        if value is None or value == NO_CLASS:
            return None
        if isinstance(value, str):  # names were filled in for the numbers, and the declaration stayed
            return value
        if not 0 <= value < len(names):
            found = f"is {value}, but there are {len(names)} classes, counted from 0"
            raise Undecodable(found, f"the number of a class, or {NO_CLASS} for no class")
        return names[value]

    return decode


def _of_json(value: Any) -> Any:
    try:
        return value if value is None else json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Undecodable(f"cannot be read as JSON: {error!s:.100}", "JSON, as the file declares") from error


def _of_list(decoder: Decoder | None) -> Decoder | None:
    """The decoder of a list; a list of structs may be stored as a struct of lists."""
    if decoder is None:
        return None

    def decode(value: Any) -> Any:
        if isinstance(value, dict):
            rows = [decoder(dict(zip(value, row, strict=True))) for row in zip(*value.values(), strict=True)]
            return {key: [row[key] for row in rows] for key in value}
        return value if value is None else [decoder(one) for one in value]

    return decode


def _of_struct(fields: Mapping[str, Any]) -> Decoder | None:
    inner = decoders(fields)
    if not inner:
        return None

    def decode(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: inner[key](one) if key in inner else one for key, one in value.items()}

    return decode
