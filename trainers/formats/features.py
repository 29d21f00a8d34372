"""Classes that the hub's `datasets` stores as numbers: their names stand beside the schema of a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

UNLABELED = -1
"""The number that data sets of the hub give to rows whose class nobody may see, as in many test sets."""
Namer = Callable[[Any], Any]


class NoSuchClass(Exception):
    """A number that is none of a class."""


def declared_features(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """What a schema says about columns in the way of `datasets`; nothing where it does not."""
    try:
        said = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        features = said["info"]["features"]
    except (ValueError, KeyError, TypeError):  # another program's, or of another time
        return {}
    return features if isinstance(features, dict) else {}


def namers(features: Mapping[str, Any]) -> dict[str, Namer]:
    """For each column that holds numbers of classes: what puts names in their place, None where there is no class.

    They raise `NoSuchClass`.
    """
    return {column: namer for column, feature in features.items() if (namer := _namer(feature)) is not None}


def _namer(feature: Any) -> Namer | None:
    if isinstance(feature, list):  # [feature] is a list of it
        return _of_each(_namer(feature[0])) if len(feature) == 1 else None
    if not isinstance(feature, dict):
        return None
    kind = feature.get("_type")
    if kind == "ClassLabel" and isinstance(feature.get("names"), list):
        return _of_class(feature["names"])
    if kind in ("Sequence", "List", "LargeList"):
        inner = feature.get("feature")
        return _of_each(_namer(inner))
    return None if isinstance(kind, str) else _of_struct(feature)


def _of_class(names: list[str]) -> Namer:
    def name(value: Any) -> Any:
        if value is None or value == UNLABELED or isinstance(value, str):
            return None if value == UNLABELED else value
        if not 0 <= value < len(names):
            raise NoSuchClass(f"is {value}, but there are {len(names)} classes, counted from 0")
        return names[value]

    return name


def _of_each(namer: Namer | None) -> Namer | None:
    """Of a list; a list of structs may be kept as a struct of lists."""
    if namer is None:
        return None

    def name(value: Any) -> Any:
        if isinstance(value, dict):
            rows = [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
            named = [namer(row) for row in rows]
            return {key: [row[key] for row in named] for key in value}
        return value if value is None else [namer(one) for one in value]

    return name


def _of_struct(fields: Mapping[str, Any]) -> Namer | None:
    inner = namers(fields)
    if not inner:
        return None

    def name(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: inner[key](one) if key in inner else one for key, one in value.items()}

    return name
