"""Dataclasses to JSON and back, and the hash of what they hold. Standard library only."""

from __future__ import annotations

import copy
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
    """A dataclass (nested) as plain JSON values, as `dataclasses.asdict` gives them, but sooner. Raises `TypeError`."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"expected a dataclass, got {type(value).__name__}")
    return _copied(value)


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
    hint: Any = cls
    return typing.cast(T, _parser(hint)(data))


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


_ATOMS: frozenset[type] = frozenset({str, int, float, bool, type(None)})
_KINDS: Mapping[Any, Any] = {tuple: (list, tuple), list: (list,), dict: (dict,)}
"""Container -> what JSON has for it; a tuple may come from `to_json` too."""
Parser = Callable[[Any], Any]
"""Makes a value of one type from JSON; made once for each type, which takes longer than reading a record."""


def _copied(value: Any) -> Any:
    kind: Any = type(value)
    if kind in _ATOMS:
        return value
    if (names := _names(kind)) is not None:
        return {name: _copied(getattr(value, name)) for name in names}
    if kind is list or kind is tuple:
        return kind(_copied(item) for item in value)
    if kind is dict:
        return {_copied(key): _copied(item) for key, item in value.items()}
    return copy.deepcopy(value)


@functools.cache
def _names(kind: type) -> tuple[str, ...] | None:
    return tuple(f.name for f in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


@functools.cache
def _parser(hint: Any) -> Parser:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return lambda data: data
    if origin in (typing.Union, types.UnionType):
        return _of_union(arguments)
    if dataclasses.is_dataclass(hint):
        return functools.partial(_dataclass, hint)
    if origin in _KINDS:
        return _of_container(origin, arguments)
    if origin is Literal:
        return _of_literal(arguments)
    return functools.partial(_plain, hint)


def _plain(hint: Any, data: Any) -> Any:
    if type(data) is hint:
        return data
    if hint is float and isinstance(data, int):
        return float(data)
    if not isinstance(data, hint):
        raise ValueError(f"expected {hint.__name__}, got {data!r}")
    return data


def _of_literal(known: tuple[Any, ...]) -> Parser:
    def parse(data: Any) -> Any:
        if data not in known:
            raise ValueError(f"{data!r} is none of {known}")
        return data

    return parse


def _of_container(origin: Any, arguments: tuple[Any, ...]) -> Parser:
    """Of `list[T]`, `tuple[T, ...]` or `dict[str, T]`."""
    hint, kinds, is_dict = arguments[1 if origin is dict else 0], _KINDS[origin], origin is dict
    atoms, item = _atoms(hint), _parser(hint)

    def parse(data: Any) -> Any:
        if type(data) not in kinds and not isinstance(data, kinds):
            raise ValueError(f"expected {origin.__name__}, got {data!r}")
        if is_dict:
            return {key: value if type(value) in atoms else item(value) for key, value in data.items()}
        return origin([value if type(value) in atoms else item(value) for value in data])

    return parse


def _of_union(options: tuple[Any, ...]) -> Parser:
    plain = [option for option in options if option is not type(None)]
    only = _parser(plain[0]) if len(plain) == 1 else None

    def parse(data: Any) -> Any:
        if (data is None and len(plain) < len(options)) or type(data) in plain:
            return data
        return only(data) if only else data

    return parse


def _atoms(hint: Any) -> frozenset[type]:
    """Types of plain values that a hint takes as they are: most of a record, and it takes thousands of them."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return _ATOMS.intersection(typing.get_args(hint) if is_union else (hint,))


class _Field(typing.NamedTuple):
    name: str
    atoms: frozenset[type]
    parse: Parser
    earlier: str | None
    """What earlier records call it."""
    read: Parser
    """Makes of their value one that the field takes now."""
    is_needed: bool


@functools.cache
def _fields(cls: Any) -> tuple[_Field, ...]:
    hints, missing = typing.get_type_hints(cls), dataclasses.MISSING
    return tuple(
        _Field(f.name, _atoms(hints[f.name]), _parser(hints[f.name]), f.metadata.get("was"),
               f.metadata.get("read", lambda value: value), f.default is missing and f.default_factory is missing)
        for f in dataclasses.fields(cls)
    )  # fmt: skip


def _dataclass(cls: Any, data: Any) -> Any:
    if type(data) is cls:
        return data
    if not isinstance(data, (dict, Mapping)):  # asking for `dict` first is quicker
        raise ValueError(f"expected the fields of {cls.__name__}, got {data!r}")
    found = {}
    for name, atoms, parse, earlier, read, is_needed in _fields(cls):
        if name in data:
            value = data[name]
            found[name] = value if type(value) in atoms else parse(value)
        elif earlier in data:
            found[name] = parse(read(data[earlier]))
        elif is_needed:
            raise ValueError(f"{cls.__name__} lacks {name!r}")
    return cls(**found)
