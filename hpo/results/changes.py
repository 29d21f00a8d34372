"""What two configs, or several, say differently: every key in which they differ, by its path. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.quoting import clipped
from hpo.results.state import Change


def change_in_words(change: Change) -> str:
    """What an edit did to one key: `finalists: {"top": 2} -> null`."""
    return f"{change.key}: {as_written(change.old)} -> {as_written(change.new)}"


def as_written(value: Any) -> str:
    """A value as a file may write it (JSON is YAML), cut after about 100 characters."""
    return clipped(json.dumps(value, ensure_ascii=False))


def differences(old: Any, new: Any, path: str = "") -> list[Change]:
    """Every leaf in which two configs (plain values) differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [d for key in keys for d in differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))]
    return [] if old == new else [Change(path, old, new)]


@dataclass(frozen=True)
class Varied:
    """One key that is not the same in all of several configs."""

    key: str
    """Its path, with dots."""
    values: Sequence[Any]
    """Of each config; None where it does not have the key."""


def varied(configs: Sequence[Mapping[str, Any]]) -> list[Varied]:
    """The keys that are not the same in all configs, but for the name, which is always another."""
    return _varied([{key: value for key, value in config.items() if key != "name"} for config in configs], "")


def _varied(values: Sequence[Any], path: str) -> list[Varied]:
    """The leaves below `path` that differ; where only some of the configs have a section, it is one leaf."""
    if all(isinstance(value, dict) for value in values):
        keys = dict.fromkeys(key for value in values for key in value)
        return [v for key in keys for v in _varied([value.get(key) for value in values], f"{path}.{key}".lstrip("."))]
    return [] if all(value == values[0] for value in values) else [Varied(path, values)]
