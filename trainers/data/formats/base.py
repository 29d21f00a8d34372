"""What every reader of data gives back: rows with their places, and what is wrong with those that are none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainers.protocol.messages import Finding

MAX_PLACES = 3
MAX_NAMES = 10
MAX_SHOWN = 100
"""Characters of a value or a name that a message repeats."""


class DataProblem(Exception):
    """Data or model that no trial can use: every finding."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        super().__init__("; ".join(f"{f.where}: {f.found}" for f in findings))


@dataclass(frozen=True)
class Row:
    """One row and where it stands: `FILE:LINE`, or `SOURCE row N`."""

    where: str
    values: dict[str, Any]
    is_document: bool = False
    """Whether it is running text that stands in order with its neighbours."""


Entry = Row | list[Finding]
"""A row as it stands in its source, or all that is wrong with it."""


@dataclass(frozen=True)
class Reading:
    """How files are read, and what turns out on the way that a person should know."""

    documents: str = "file"
    """What one text of a `.txt` is: its `file`, `paragraph`, `line`, or what stands between two of this separator."""
    notes: list[str] = field(default_factory=list)


Reader = Callable[[Path, Reading], Iterator[Entry]]
"""The entries of one file. Raises `DataProblem` when the file as a whole cannot be read."""


def refused(where: object, found: str, expected: str = "") -> DataProblem:
    """The problem of a source that cannot be read at all."""
    return DataProblem([Finding(str(where), found, expected)])


def places(wheres: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = len(wheres) - MAX_PLACES
    return ", ".join(wheres[:MAX_PLACES]) + (f" and {more:,} more" if more > 0 else "")


def names(given: Sequence[str]) -> str:
    """The first ten of them, each cut to 100 characters, and how many more there are."""
    shown = ", ".join(cut(name) for name in given[:MAX_NAMES])
    more = len(given) - MAX_NAMES
    return shown + (f" and {more:,} more" if more > 0 else "")


def names_of(row: Row) -> str:
    """What the columns of a row are called, for messages."""
    return names(list(row.values)) or "nothing"


def cut(text: str) -> str:
    """The first 100 characters of a text, for messages."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
