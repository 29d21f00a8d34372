"""The champion's error analysis as a report shows it, as far as its files can be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class ChampionFiles:
    """What the files of that folder hold."""

    worst_rows: Sequence[Mapping[str, Any]]
    """Worst first; empty where they were not written."""
    confusion_svg: str | None
    """Where the task has one label a row."""
    unread: Sequence[str]
    """Why a file is not shown, for each that cannot be read."""


def read_champion_files(files: Mapping[str, str]) -> ChampionFiles:
    """The files by their names, each with its path; one that is damaged does not hide the others."""
    unread: list[str] = []

    def read(name: str, parse: Callable[[str], T], nothing: T) -> T:
        if name not in files:
            return nothing
        try:
            return parse(Path(files[name]).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            way = "remove it: the next hpo sweep of the file writes it again"
            unread.append(f"{files[name]} cannot be read ({str(error)[:100]}); {way}")
            return nothing

    no_rows: list[Mapping[str, Any]] = []
    worst = read("worst_examples.jsonl", _rows, no_rows)
    confusion = read("confusion_matrix.svg", _svg, None)
    return ChampionFiles(worst, confusion, unread)


def _rows(text: str) -> list[Mapping[str, Any]]:
    rows = []
    # A row's text may have U+2028 or U+0085 in it, where splitlines() cuts too.
    for number, line in enumerate(StringIO(text), 1):
        row = json.loads(line)
        if not isinstance(row, Mapping):
            raise ValueError(f"line {number} is not a row")  # the file's content, not an argument's type
        rows.append(row)
    return rows


def _svg(text: str) -> str | None:
    if not (text.lstrip().startswith("<svg") and text.rstrip().endswith("</svg>")):
        raise ValueError("it is not an SVG, or was cut")
    return text
