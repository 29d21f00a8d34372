"""YAML as written by a person: values, and the line of every key.

`Section` hands out keys one at a time and collects every problem instead of stopping at the first, so that a
person sees all of them at once. What nobody asked for is an unknown key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from hpo.errors import ConfigError, Problem, did_you_mean


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads `1e-6` as a number: YAML 1.2 does, PyYAML wants `1.0e-6`."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


class Section:
    """One mapping of a YAML file, with the place of each key for messages."""

    def __init__(
        self, values: Mapping[str, Any], path: tuple[str, ...], lines: Mapping[tuple[str, ...], int],
        file: str, problems: list[Problem],
    ) -> None:  # fmt: skip
        self._values = values
        self._path = path
        self._lines = lines
        self._file = file
        self._asked: list[str] = []
        self.problems = problems

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def names(self) -> list[str]:
        return list(self._values)

    def where(self, *keys: str) -> str:
        """`FILE:LINE: key.path` of a key below this section."""
        path = (*self._path, *keys)
        known = next((self._lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self._lines), 1)
        return f"{self._file}:{known}: {'.'.join(path)}" if path else f"{self._file}:{known}"

    def problem(self, found: str, expected: str = "", *keys: str) -> None:
        self.problems.append(Problem(self.where(*keys), found, expected))

    def raw(self, key: str) -> Any:
        """The value as YAML gave it, or None; marks the key as known."""
        self._asked.append(key)
        return self._values.get(key)

    def text(self, key: str, default: str | None = None) -> str | None:
        value = self.raw(key)
        if value is None or isinstance(value, str):
            return default if value is None else value
        self.problem(f"got {value!r}", "expected text", key)
        return default

    def number(self, key: str, default: float, accept: Callable[[float], bool], expected: str) -> float:
        value = self.raw(key)
        if value is None:
            return default
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or not accept(value):
            self.problem(f"got {value!r}", f"expected {expected}", key)
            return default
        number: float = value
        return number

    def flag(self, key: str, default: bool) -> bool:
        value = self.raw(key)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.problem(f"got {value!r}", "expected true or false", key)
        return default

    def one_of(self, key: str, choices: Iterable[str], default: str) -> str:
        value = self.raw(key)
        if value is None or value in tuple(choices):
            return default if value is None else str(value)
        self.problem(f"got {value!r}", did_you_mean(str(value), choices), key)
        return default

    def section(self, key: str) -> Section:
        """The mapping below `key`; empty when the key is not there."""
        value = self.raw(key)
        if value is not None and not isinstance(value, dict):
            self.problem(f"got {value!r}", "expected a mapping", key)
            value = None
        return self.child(key, value or {})

    def child(self, key: str, values: Mapping[str, Any]) -> Section:
        """A section at `key` with values of its own, for a key that has a short form."""
        return Section(values, (*self._path, key), self._lines, self._file, self.problems)

    def refuse_unbuilt(self, key: str, what: str) -> None:
        """A key of the grammar that does nothing yet is refused, never ignored."""
        if key in self._values:
            self.problem("is not built yet", f"remove it ({what})", key)
            self._asked.append(key)

    def finish(self) -> None:
        """Report every key that nobody asked for."""
        known = list(dict.fromkeys(self._asked))
        for key in self._values:
            if key not in known:
                self.problem("unknown key", did_you_mean(str(key), known), str(key))


def load(path: Path) -> Section:
    """Read a YAML file into its root section.

    Raises `ConfigError` when the file is missing, is not UTF-8 YAML, repeats a key or is not a mapping.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError([Problem(str(path), f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(str(path), "is not UTF-8 text")]) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError([Problem(f"{path}:{line}", f"is not YAML: {error.problem}")]) from error
    except yaml.YAMLError as error:
        raise ConfigError([Problem(str(path), f"is not YAML: {error}")]) from error
    except RecursionError as error:
        raise ConfigError([Problem(str(path), "is nested too deeply to be read")]) from error
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError([Problem(str(path), "is not a mapping", "expected keys such as task, model and data")])
    lines: dict[tuple[str, ...], int] = {}
    problems: list[Problem] = []
    values = _construct(root, (), lines, str(path), problems)
    if problems:
        raise ConfigError(problems)
    return Section(values, (), lines, str(path), problems)


def _construct(
    node: yaml.Node, path: tuple[str, ...], lines: dict[tuple[str, ...], int], file: str, problems: list[Problem],
    inside: frozenset[int] = frozenset(),
) -> Any:  # fmt: skip
    """A node's plain value, noting the line of every key on the way; `inside` are the nodes around it."""

    def problem(where: yaml.Node, at: tuple[str, ...], found: str) -> None:
        problems.append(Problem(f"{file}:{where.start_mark.line + 1}: {'.'.join(at)}", found))

    if id(node) in inside:
        problem(node, path, "contains itself")
        return None
    inside |= {id(node)}
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            below = (*path, str(key_node.value))
            if below[-1] in values:
                problem(key_node, below, "is given twice")
            lines[below] = key_node.start_mark.line + 1
            values[below[-1]] = _construct(value_node, below, lines, file, problems, inside)
        return values
    if isinstance(node, yaml.SequenceNode):
        return [
            _construct(item, _item(path, index), lines, file, problems, inside) for index, item in enumerate(node.value)
        ]
    loader = _Loader("")
    try:
        value = loader.construct_object(node)
        if isinstance(value, int) and abs(value) >= 1 << 63:
            problem(node, path, "is a number too large for any setting")
            return None
        return value
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:  # what PyYAML raises on odd tags
        problem(node, path, f"cannot be read: {error}".splitlines()[0])
        return None
    finally:
        loader.dispose()


def _item(path: tuple[str, ...], index: int) -> tuple[str, ...]:
    """The path of an item of a list: `objective[0]`."""
    return (*path[:-1], f"{path[-1]}[{index}]") if path else path
