"""YAML as written by a person: keys asked for one at a time, each with its line for messages.

`Section` hands out keys one at a time and collects every problem instead of stopping at the first, so that a
person sees all of them at once. A key that was not asked for is an unknown key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.errors import Problem, did_you_mean
from hpo.quoting import clipped, quoted

if TYPE_CHECKING:
    from hpo.config.yaml_reader import Written


class Section:
    """One mapping of a YAML file, with the place of each key for messages."""

    def __init__(
        self, values: Mapping[str, Any], path: tuple[str, ...], written: Written, problems: list[Problem]
    ) -> None:
        self._values = values
        self._path = path
        self.written = written
        self._asked: list[str] = []
        self.problems = problems

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def names(self) -> list[str]:
        """The keys that stand there, in their order."""
        return list(self._values)

    def where(self, *keys: str) -> str:
        """The place of a key below this section, as `FILE:LINE: key.path`."""
        return self.written.where((*self._path, *keys))

    def problem(self, found: str, expected: str = "", *keys: str) -> None:
        """Report what is wrong with a key below this section, and what would be right."""
        self.problems.append(Problem(self.where(*keys), found, expected))

    def got(self, value: object, expected: str, *keys: str) -> None:
        """A value that cannot be, and what would be right."""
        found = "got null" if value is None else f"got {quoted(value)}"
        self.problem("is empty" if self.is_empty(*keys) else found, expected + _meant(value, expected), *keys)

    def is_empty(self, *keys: str) -> bool:
        """Whether a key stands there without a value, `hours:`."""
        return (*self._path, *keys) in self.written.empty

    def raw(self, key: str) -> Any:
        """The value as YAML gave it, or None; marks the key as known."""
        self._asked.append(key)
        return self._values.get(key)

    def optional(self, key: str, expected: str = "a value, or leave the key out") -> Any:
        """The value of a key that may be null, or None; a key without a value is a problem."""
        if key in self._values and self.is_empty(key):
            self.got(None, f"expected {expected}", key)
        return self.raw(key)

    def _is_left_out(self, key: str) -> bool:
        """Whether a key that may not be null is not there. Marks it as known."""
        self._asked.append(key)
        return key not in self._values

    def text(self, key: str, default: str | None = None) -> str | None:
        """A text that is not empty; null only where the default is None."""
        value = self.raw(key)
        is_fine_null = default is None and value is None and not self.is_empty(key)
        if self._is_left_out(key) or is_fine_null:
            return default
        if isinstance(value, str) and value:
            return value
        self.got(value, "expected text", key)
        return default

    def number(
        self, key: str, default: float, accept: Callable[[float], bool], expected: str, most: float = 1_000_000
    ) -> float:
        """A finite number; beyond `most` it is a typing error, whatever `accept` says."""
        if self._is_left_out(key):
            return default
        value = self.raw(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            self.got(value, f"expected {expected}", key)
        elif abs(value) > most:
            self.got(value, f"expected at most {most:,}", key)
        elif not accept(value):
            self.got(value, f"expected {expected}", key)
        else:
            return value
        return default

    def whole(self, key: str, default: int, low: int, high: int | None = None, most: int = 1_000_000) -> int:
        """A whole number from `low` to `high`; 1e3 is one."""
        right = f"a whole number from {low}"
        if high is not None:
            right += f" to {high:,}" if high >= 10_000 else f" to {high}"
        return int(self.number(key, default, lambda v: low <= v <= (high or most) and v == int(v), right, most))

    def flag(self, key: str, default: bool) -> bool:
        """The value of a key that is true or false."""
        if self._is_left_out(key):
            return default
        value = self.raw(key)
        if isinstance(value, bool):
            return value
        self.got(value, "expected true or false", key)
        return default

    def one_of(self, key: str, choices: Iterable[str], default: str) -> str:
        """One of a few words."""
        if self._is_left_out(key):
            return default
        value = self.raw(key)
        if isinstance(value, str) and value in tuple(choices):
            return value
        self.got(value, did_you_mean("" if value is None else str(value), choices), key)
        return default

    def section(self, key: str) -> Section:
        """The mapping below `key`; empty when the key is not there, or has nothing below it."""
        value = self.raw(key)
        if value is not None and not isinstance(value, dict):
            self.got(value, "expected a mapping", key)
            value = None
        return self.child(key, value or {})

    def child(self, key: str, values: Mapping[str, Any]) -> Section:
        """A section at `key` with values of its own, for a key that has a short form."""
        return Section(values, (*self._path, key), self.written, self.problems)

    def finish(self) -> None:
        """Report every key that was not asked for as unknown."""
        known = list(dict.fromkeys(self._asked))
        for key in self._values:
            if key not in known:
                self.problem("unknown key", did_you_mean(str(key), known), str(key))


def load(path: Path) -> Section:
    """Read a YAML file into its root section; keys that begin with `x-` hold what anchors need, and are no keys.

    Raises `ConfigError` where `read_yaml` does.
    """
    from hpo.config.yaml_reader import read_yaml  # late: who reads studies does without YAML

    values, written = read_yaml(path)
    return Section({name: v for name, v in values.items() if not name.startswith("x-")}, (), written, [])


def _meant(value: object, expected: str) -> str:
    """A text that stands where a number is meant, as a number is written; empty where it is none."""
    plain = value.strip().replace("_", "") if isinstance(value, str) else ""
    is_grouped = re.fullmatch(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?", plain)
    plain = plain.replace(",", "" if is_grouped else ".")  # 1,000 is a thousand; 0,001 has a decimal comma
    is_broken = "." in plain and expected.startswith("expected a whole number")
    if (
        is_broken
        or not re.fullmatch(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?", plain)
        or not re.search("number|share", expected)
    ):
        return ""
    return f": write {clipped(plain)}"
