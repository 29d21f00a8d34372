"""The results of every reader of data: rows with their places, or findings about invalid rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainers.protocol.events import Finding

MAX_PLACES = 3
MAX_NAMES = 10
MAX_SHOWN = 100
"""Characters of a value or a name that a message shows."""


class DataProblem(Exception):
    """No trial can use the data or the model; it has every finding."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        super().__init__("; ".join(f"{f.where}: {f.found}" for f in findings))


@dataclass(frozen=True)
class Row:
    """One row with its place: `FILE:LINE`, or `SOURCE row N`."""

    where: str
    values: dict[str, Any]
    is_document: bool = False
    """Whether it is running text, in order with the rows around it."""


Entry = Row | list[Finding]
"""A row of a source, or all findings about it."""


@dataclass(frozen=True)
class Reading:
    """How to read files, and notes that are collected meanwhile."""

    documents: str = "file"
    """What one text of a `.txt` is: `file`, `paragraph` or `line`; any other value is a separator between texts."""
    notes: list[str] = field(default_factory=list)


Reader = Callable[[Path, Reading], Iterator[Entry]]
"""Yields the entries of one file. Raises `DataProblem` when the whole file cannot be read."""


def refused(where: object, found: str, expected: str = "") -> DataProblem:
    """The problem with a source that cannot be read at all."""
    return DataProblem([Finding(str(where), found, expected)])


def places(wheres: Sequence[str]) -> str:
    """The first few places, and how many more there are."""
    more = len(wheres) - MAX_PLACES
    return ", ".join(wheres[:MAX_PLACES]) + (f" and {more:,} more" if more > 0 else "")


def names(given: Sequence[str]) -> str:
    """The first ten names, each cut to 100 characters, and how many more there are."""
    shown = ", ".join(cut(name) for name in given[:MAX_NAMES])
    more = len(given) - MAX_NAMES
    return shown + (f" and {more:,} more" if more > 0 else "")


def names_of(row: Row) -> str:
    """The names of a row's columns, for messages."""
    return names(list(row.values)) or "nothing"


def cut(text: str) -> str:
    """The first 100 characters of a text, for messages."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
