"""What two configs, or several, say differently: every key in which they differ, by its path. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.results.state import Change


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
    """The keys in which any of the configs differs from the first, but for the name, which is always another."""
    first = {key: value for key, value in configs[0].items() if key != "name"}
    found: dict[str, list[Any]] = {}
    for place, config in enumerate(configs[1:], 1):
        other = {key: value for key, value in config.items() if key != "name"}
        for change in differences(first, other):
            found.setdefault(change.key, [change.old] * len(configs))[place] = change.new
    return [Varied(key, values) for key, values in found.items()]
