"""What the checks find, row by row: as a table of 80 columns, and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

Outcome = Literal["ok", "failed", "measured", "not run"]
WIDTH = 80
_INDENT = 10


@dataclass(frozen=True)
class Row:
    """One thing that was looked at."""

    what: str
    outcome: Outcome
    found: str = ""
    """In words; for `not run`, why."""
    numbers: dict[str, float] = field(default_factory=dict)


def held(what: str, is_so: bool, found: str = "", **numbers: float) -> Row:
    """A row that says whether something is as it should be."""
    return Row(what, "ok" if is_so else "failed", found, numbers)


def measured(what: str, found: str, **numbers: float) -> Row:
    """A row that only tells a figure."""
    return Row(what, "measured", found, numbers)


def not_run(what: str, why: str) -> Row:
    """A row that says why something was left out."""
    return Row(what, "not run", why)


def line(row: Row) -> str:
    """A row as JSON on one line, as a child process hands it up."""
    return json.dumps(asdict(row))


def from_line(text: str) -> Row:
    """The inverse of `line`."""
    return Row(**json.loads(text))


def shown(row: Row) -> str:
    """A row in 80 columns: the outcome, what it is about, and below it what was found."""
    wide = WIDTH - _INDENT
    parts = textwrap.wrap(row.what, wide)
    single = f"{row.what}: {row.found}" if row.found else row.what
    lines = [single] if len(single) <= wide else [*parts, *textwrap.wrap(row.found, wide - 2, initial_indent="  ",
                                                                      subsequent_indent="  ")]  # fmt: skip
    return "\n".join(f"{row.outcome if number == 0 else '':<{_INDENT}}{text}" for number, text in enumerate(lines))


def summary(rows: Sequence[Row]) -> str:
    """How many rows there are of each outcome."""
    counts = {outcome: sum(row.outcome == outcome for row in rows) for outcome in ("ok", "failed", "measured")}
    left_out = sum(row.outcome == "not run" for row in rows)
    return ", ".join([*(f"{count} {outcome}" for outcome, count in counts.items()), f"{left_out} not run"])
