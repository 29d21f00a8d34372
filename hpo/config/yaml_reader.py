"""A YAML file as plain values, with the line of every key: YAML 1.2's core rules, merge keys, and bounds.

PyYAML follows YAML 1.1, in which `on` is true, `020` is 16 and `1:30` is 90. Here they are text, 20 and text.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hpo.errors import ConfigError, Problem
from hpo.quoting import clipped, quoted

MOST_BYTES = 1 << 19
"""Of a file: a sweep's is a page long."""
MOST_VALUES = 100_000
"""Of a file, its aliases written out."""
_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_SCALARS: Mapping[str, tuple[str, str, Callable[[str], Any]]] = {
    "null": (r"|~|null|Null|NULL", "~nN", lambda text: None),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF", lambda text: text.lower() == "true"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789", lambda text: _int(text)),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
        lambda text: float(text.replace(".", "", 1) if text[-1].isalpha() else text),
    ),
}
"""Kind -> how it is written, with which characters it begins, and what it is; everything else is text."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core schema; it remembers what each anchor is called."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # PyYAML's own name

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.anchored: list[tuple[str, yaml.Node]] = []

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        node: Any = super().compose_node(parent, index)
        if (anchor := event.anchor) is not None and not isinstance(event, yaml.AliasEvent):
            self.anchored.append((anchor, node))
        return node


for _kind, (_pattern, _first, _) in _SCALARS.items():
    _Loader.add_implicit_resolver(
        _TAG + _kind, re.compile(f"^(?:{_pattern})$"), ["", *_first] if _kind == "null" else list(_first)
    )
_Loader.add_implicit_resolver(_MERGE, re.compile("^<<$"), ["<"])


@dataclass
class Written:
    """What a file says besides its values."""

    file: str
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)
    """Key path -> its line."""
    empty: set[tuple[str, ...]] = field(default_factory=set)
    """Key paths without a value: `hours:`, where `hours: null` has one."""

    def where(self, path: tuple[str, ...]) -> str:
        """The place of a key, as `FILE:LINE: key.path`; a missing key has the line of the section around it, and an
        item that is no mapping that of its list."""
        around = [place for n in range(len(path), 0, -1) for place in (path[:n], _list_of(path[:n]))]
        line = next((self.lines[place] for place in around if place in self.lines), 1)
        at = ".".join(clipped(part) for part in path)
        return f"{self.file}:{line}: {at}" if path else f"{self.file}:{line}"


def read_yaml(path: Path) -> tuple[dict[str, Any], Written]:
    """The values of a YAML file, and where they stand.

    Raises `ConfigError` when it is no regular file of at most `MOST_BYTES`, is not UTF-8 YAML, repeats a key, grows by
    its aliases beyond `MOST_VALUES`, or is not a mapping.
    """
    root, anchored = _compose(_text(path), path)
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError([Problem(str(path), "is not a mapping", "expected keys such as task, model and data")])
    reader = _Reader(Written(str(path)))
    if not reader.has_too_many_values(root, anchored):
        values = reader.mapping(root, (), frozenset())
    if reader.problems:
        raise ConfigError(reader.problems)
    return values, reader.written


def _text(path: Path) -> str:
    """The text of a regular file: a pipe may never end, and a device has no size."""
    try:
        str(path.absolute()).encode()
        if not stat.S_ISDIR(mode := path.stat().st_mode) and not stat.S_ISREG(mode):
            found = "is not a regular file (a pipe or a device)"
            raise ConfigError([Problem(str(path), found, "expected a YAML file")])
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError([Problem(str(path), f"cannot be read: {error.strerror}")]) from error
    except UnicodeEncodeError as error:
        raise ConfigError([Problem(str(path), "its path is no UTF-8 text", "rename it")]) from error
    if len(content) > MOST_BYTES:
        raise ConfigError([Problem(str(path), f"is larger than {MOST_BYTES >> 10} KB", "expected the YAML of a sweep")])
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(f"{path}:{line}", "is not UTF-8 text", "save it as UTF-8")]) from error


def _compose(text: str, path: Path) -> tuple[Any, list[tuple[str, yaml.Node]]]:
    """The root node, and those that have an anchor, with its name."""

    def not_yaml(line: int, why: str) -> ConfigError:
        return ConfigError([Problem(f"{path}:{line}", f"is not YAML: {clipped(why)}")])

    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        return loader.get_single_node(), loader.anchored
    except yaml.reader.ReaderError as error:
        found = f"the character U+{ord(text[error.position]):04X} is not allowed"
        raise not_yaml(text.count("\n", 0, error.position) + 1, found) from error
    except yaml.MarkedYAMLError as error:
        raise not_yaml(error.problem_mark.line + 1 if error.problem_mark else 1, str(error.problem)) from error
    except (ValueError, OverflowError) as error:  # an escape such as \Uffffffff
        line = loader.line + 1 if loader else 1
        raise not_yaml(line, "an escape that does not name a character") from error
    except RecursionError as error:
        raise ConfigError([Problem(str(path), "is nested too deeply to be read")]) from error


@dataclass
class _Reader:
    """Turns nodes into values; problems are collected, so that a person sees all of them at once."""

    written: Written
    problems: list[Problem] = field(default_factory=list)

    def problem(self, node: yaml.Node, path: tuple[str, ...], found: str, expected: str = "") -> None:
        at = f": {clipped('.'.join(path))}" if path else ""
        self.problems.append(Problem(f"{self.written.file}:{node.start_mark.line + 1}{at}", found, expected))

    def has_too_many_values(self, root: yaml.Node, anchored: Sequence[tuple[str, yaml.Node]]) -> bool:
        """Whether the file grows beyond `MOST_VALUES` where its aliases are written out; the largest is named."""
        sizes: dict[int, int] = {}
        if _size(root, sizes) <= MOST_VALUES:
            return False
        found = f"has more than {MOST_VALUES:,} values"
        if anchored:
            name, root = max(anchored, key=lambda one: sizes[id(one[1])])
            found += f" where its aliases are written out: &{clipped(name)} is the largest"
        self.problems.append(
            Problem(f"{self.written.file}:{root.start_mark.line + 1}", found, "expected the YAML of a sweep")
        )
        return True

    def value(self, node: yaml.Node, path: tuple[str, ...], inside: frozenset[int]) -> Any:
        """A node's plain value; `inside` are the nodes around it."""
        if id(node) in inside:
            self.problem(node, path, "contains itself")
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, inside)
        if isinstance(node, yaml.SequenceNode):
            self._refuse_tag(node, path, "seq")
            below = inside | {id(node)}
            return [self.value(item, _item(path, index), below) for index, item in enumerate(node.value)]
        return self.scalar(node, path)

    def mapping(self, node: yaml.MappingNode, path: tuple[str, ...], inside: frozenset[int]) -> dict[str, Any]:
        self._refuse_tag(node, path, "map")
        values: dict[str, Any] = {}
        for name, (key_node, value_node) in self._pairs(node, path, inside).items():
            self.written.lines[*path, name] = key_node.start_mark.line + 1
            values[name] = self.value(value_node, (*path, name), inside | {id(node)})
        return values

    def _pairs(
        self, node: yaml.MappingNode, path: tuple[str, ...], inside: frozenset[int]
    ) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Name -> key and value. What a mapping says itself goes before what it merges, an earlier source before a
        later one."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merge: yaml.Node | None = None
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                if merge is not None:
                    self.problem(key_node, (*path, "<<"), "is given twice", "expected a list: <<: [*one, *other]")
                merge = value_node
                for source in self._sources(value_node, path, inside | {id(node)}):
                    for name, pair in self._pairs(source, path, inside | {id(node)}).items():
                        merged.setdefault(name, pair)
                continue
            name = self._key(key_node, path)
            if name in own:
                self.problem(key_node, (*path, name), "is given twice")
            own[name] = (key_node, value_node)
        return {**own, **{name: pair for name, pair in merged.items() if name not in own}}

    def _sources(self, node: yaml.Node, path: tuple[str, ...], inside: frozenset[int]) -> list[yaml.MappingNode]:
        """The mappings that a merge key names."""
        named = node.value if isinstance(node, yaml.SequenceNode) else [node]
        sources = [source for source in named if isinstance(source, yaml.MappingNode)]
        if any(id(source) in inside for source in sources):
            self.problem(node, (*path, "<<"), "contains itself")
            return []
        if len(sources) < len(named):
            found = "merges something that is not a mapping"
            self.problem(node, (*path, "<<"), found, "expected <<: *NAME of an anchored mapping")
        return sources

    def _key(self, node: yaml.Node, path: tuple[str, ...]) -> str:
        if not isinstance(node, yaml.ScalarNode):
            self.problem(node, path, "has a key that is not text", "expected name: value")
            return ""
        return self._characters(node, path)

    def scalar(self, node: yaml.Node, path: tuple[str, ...]) -> Any:
        """A number, true or false, null or text. An explicit tag is believed where the text fits it."""
        kind = node.tag.removeprefix(_TAG)
        if kind in ("str", "merge"):
            return self._characters(node, path)
        if kind not in _SCALARS:
            self._refuse_tag(node, path, "str")
            return None
        if node.value == "" and kind == "null":
            self.written.empty.add(path)
        pattern, _, convert = _SCALARS[kind]
        try:
            if not re.fullmatch(pattern, node.value):
                raise ValueError(f"{quoted(node.value)} is not of type {kind}")
            value = convert(node.value)
        except ValueError as error:  # thousands of digits, too
            self.problem(node, path, f"cannot be read: {clipped(str(error))}")
            return None
        if _is_too_large(node.value, value):
            self.problem(node, path, "is a number too large for any setting")
            return None
        return value

    def _characters(self, node: yaml.Node, path: tuple[str, ...]) -> str:
        """The text of a scalar. JSON writes what lies beyond 16 bits as two escapes: they are one character."""
        text = str(node.value)
        try:
            text.encode()
        except UnicodeEncodeError:
            try:
                return text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                self.problem(
                    node, path, "holds half a character (a lone surrogate such as \\ud83d)", "whole characters"
                )
                return ""
        return text

    def _refuse_tag(self, node: yaml.Node, path: tuple[str, ...], kind: str) -> None:
        if node.tag != _TAG + kind:
            tag = clipped(str(node.tag).replace(_TAG, "!!"))
            self.problem(node, path, f"cannot be read: it has the tag {tag}", "leave the tag out")


def _int(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _is_too_large(text: str, value: Any) -> bool:
    if isinstance(value, float):
        return abs(value) == float("inf") and text[-1].isdigit()
    return isinstance(value, int) and abs(value) >= 1 << 63


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many values a node holds, aliases written out; what contains itself is found elsewhere."""
    if id(node) not in sizes:
        sizes[id(node)] = 1
        parts = [p for pair in node.value for p in pair] if isinstance(node, yaml.MappingNode) else node.value
        if not isinstance(node, yaml.ScalarNode):
            sizes[id(node)] = 1 + sum(_size(part, sizes) for part in parts)
    return sizes[id(node)]


def _item(path: tuple[str, ...], index: int) -> tuple[str, ...]:
    """The path of an item of a list: `objective[0]`."""
    return (*path[:-1], f"{path[-1]}[{index}]") if path else path


def _list_of(path: tuple[str, ...]) -> tuple[str, ...]:
    """The path of the list that an item is in: `objective` of `objective[0]`."""
    return (*path[:-1], path[-1].partition("[")[0])
