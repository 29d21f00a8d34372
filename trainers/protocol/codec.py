"""Dataclasses to JSON and back, and the hash of what they hold. Standard library only."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """A dataclass (nested) as plain JSON values."""
    return dataclasses.asdict(value)


def to_plain(value: Any) -> Any:
    """Plain JSON values of anything in a record: a type's own `to_json` where it has one, else its fields."""
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if hasattr(value, "to_json"):
        return value.to_json()
    return to_json(value) if dataclasses.is_dataclass(value) else value


def from_json(cls: type[T], data: Any) -> T:
    """The inverse of `to_json`, for records of other versions too: fields that `cls` does not know are ignored, missing
    ones have their default. Raises `ValueError` where `data` does not fit `cls`."""
    return typing.cast(T, _parse(cls, data))


RECORD_FORMAT = 1
"""Of studies and of files. It rises when an older program could not read them rightly any more."""


def to_file(value: Any) -> str:
    """A dataclass as the text of a file that outlives this version: JSON with the format of its records."""
    return json.dumps({"format": RECORD_FORMAT, **to_json(value)}, indent=2)


def from_file(cls: type[T], text: str) -> T:
    """The inverse of `to_file`; without a format it has the first one. Raises `ValueError` where it does not fit."""
    data = json.loads(text)
    if isinstance(data, Mapping) and data.get("format", 1) > RECORD_FORMAT:
        raise ValueError(f"a newer hpo wrote it (format {data['format']}, this one reads {RECORD_FORMAT})")
    return from_json(cls, data)


def was(name: str, read: Callable[[Any], Any] = lambda value: value) -> dict[str, Any]:
    """Metadata of a dataclass field that earlier records call `name`: they are still read, and fingerprints keep it.

    `read` makes of their JSON value one that the field takes now.
    """
    return {"was": name, "read": read}


def to_record(value: Any) -> dict[str, Any]:
    """A dataclass as `to_json` gives it, its own fields under the names that the first records have for them."""
    names = {f.name: f.metadata.get("was", f.name) for f in dataclasses.fields(value)}
    return {names[name]: content for name, content in to_json(value).items()}


def fingerprint(content: Any) -> str:
    """SHA-256 of the canonical JSON of `content`, as 64 hex digits."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


_hints = functools.cache(typing.get_type_hints)
"""Name -> type of a dataclass's fields; working them out takes longer than reading a record."""
_KINDS: Mapping[Any, tuple[type, ...]] = {tuple: (list, tuple), list: (list,), dict: (dict,)}
"""Container -> what JSON has for it; a tuple may come from `to_json` too."""


def _parse(hint: Any, data: Any) -> Any:
    if hint is Any or type(data) is hint:
        return data
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _parse_union(typing.get_args(hint), data)
    if dataclasses.is_dataclass(hint):
        return _parse_dataclass(hint, data)
    if origin in _KINDS and not isinstance(data, _KINDS[origin]):
        raise ValueError(f"expected {origin.__name__}, got {data!r}")
    if origin is tuple:  # tuple[T, ...]
        return tuple(_parse(typing.get_args(hint)[0], item) for item in data)
    if origin is list:
        return [_parse(typing.get_args(hint)[0], item) for item in data]
    if origin is dict:
        return {key: _parse(typing.get_args(hint)[1], item) for key, item in data.items()}
    if origin is Literal:
        if data not in typing.get_args(hint):
            raise ValueError(f"{data!r} is none of {typing.get_args(hint)}")
        return data
    if hint is float and isinstance(data, int):
        return float(data)
    if not isinstance(data, hint):
        raise ValueError(f"expected {hint.__name__}, got {data!r}")
    return data


def _parse_union(options: tuple[Any, ...], data: Any) -> Any:
    if data is None and type(None) in options:
        return None
    plain = [option for option in options if option is not type(None)]
    if type(data) in plain:
        return data
    return _parse(plain[0], data) if len(plain) == 1 else data


def _parse_dataclass(cls: Any, data: Any) -> Any:
    if not isinstance(data, Mapping):
        raise ValueError(f"expected the fields of {cls.__name__}, got {data!r}")
    hints = _hints(cls)
    found = {}
    for field in dataclasses.fields(cls):
        earlier = field.metadata.get("was")
        if field.name in data:
            found[field.name] = _parse(hints[field.name], data[field.name])
        elif earlier in data:
            found[field.name] = _parse(hints[field.name], field.metadata["read"](data[earlier]))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{cls.__name__} lacks {field.name!r}")
    return cls(**found)
