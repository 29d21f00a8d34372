"""What quotes in a table mean: whether one with tabs is quoted at all, and whether a quoted cell swallows rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

LINE_END = re.compile(r"\r\n|\r|\n")
MANY = 3
"""Cells that agree by chance no more."""
_CELL = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^"\t\r\n]*))(\t|\r\n|\r|\n|\Z)')
"""A cell, quoted or not, and what ends it. A quote stands nowhere else."""


@dataclass(frozen=True)
class Record:
    """One row of cells, and the line that it begins in."""

    line: int
    cells: list[str]

    @property
    def lines(self) -> int:
        """How many lines it stands in."""
        return 1 + sum(len(LINE_END.findall(cell)) for cell in self.cells if "\n" in cell or "\r" in cell)


def surely_quoted(text: str, first: int, raw: Sequence[Record]) -> list[Record] | None:
    """The records of a table with tabs whose quotes surely enclose cells; None where they may be what people wrote.

    Surely: each quote opens or closes a cell or is doubled inside one, all rows are as wide as the header, and
    something says that a program did it. `raw` is the table without quoting; it begins in line `first`.
    """
    cells = list(_cells(text))
    if not cells or cells[-1].end is None:
        return None
    records, row, line, start = [], list[str](), first, first
    for cell in cells:
        row.append(cell.text)
        line += len(LINE_END.findall(cell.text))
        if cell.end != "\t":
            line += 1
            if row != [""]:
                records.append(Record(start, row))
            row, start = [], line
    if not records or any(len(record.cells) != len(records[0].cells) for record in records):
        return None
    is_needed = any(len(record.cells) != len(raw[0].cells) for record in raw)
    return records if is_needed or _is_written_by_a_program(cells, len(records[0].cells)) else None


class _Cell(NamedTuple):
    text: str
    is_quoted: bool
    end: str | None
    """What follows; None where a quote stands where none may."""


def _cells(text: str) -> Iterator[_Cell]:
    at = 0
    while at < len(text):
        match = _CELL.match(text, at)
        if match is None:
            yield _Cell("", False, None)
            return
        quoted, bare, end = match.groups()
        yield _Cell(bare if quoted is None else quoted.replace('""', '"'), quoted is not None, end)
        at = match.end()


def _is_written_by_a_program(cells: Sequence[_Cell], width: int) -> bool:
    """Whether all of the header is quoted, a quote is doubled, or just those cells are quoted that have a comma: what
    `csv`, pandas and spreadsheets do."""
    quoted = [cell for cell in cells if cell.is_quoted]
    if all(cell.is_quoted for cell in cells[:width]) or any('"' in cell.text for cell in quoted):
        return True
    has_comma = all("," in cell.text for cell in quoted)
    return len(quoted) >= MANY and has_comma and not any("," in cell.text for cell in cells if not cell.is_quoted)


class Swallowing:
    """Finds cells that hold whole rows, because a quote in them was never meant to enclose anything."""

    def __init__(self, rows: Sequence[Record], delimiter: str, width: int) -> None:
        """`rows` are all of the table, those to be judged as well."""
        sound = [row.cells for row in rows if len(row.cells) == width and row.lines == 1]
        self._delimiter, self._width = delimiter, width
        self._known = [Counter(cells[column].strip() for cells in sound) for column in range(width)]
        self._is_numeric = [len(known) >= MANY and all(map(_is_number, known)) for known in self._known]

    def swallowed(self, record: Record) -> int:
        """How many lines of a record look like rows of their own: as wide as the table, with values that it repeats.

        In a table of one column every line would.
        """
        for at, cell in enumerate(record.cells):
            lines = [line for line in LINE_END.split(cell) if line]
            if len(lines) < 2 or self._width < 2:
                continue
            rows = [line.split(self._delimiter) for line in lines]
            rows[0] = [*record.cells[:at], *rows[0]]
            rows[-1] = [*rows[-1], *record.cells[at + 1 :]]
            if all(len(row) == self._width for row in rows) and self._are_alike(rows):
                return len(rows)
        return 0

    def _are_alike(self, rows: Sequence[Sequence[str]]) -> bool:
        """Whether some column of theirs holds only what stands in that column elsewhere too, or only numbers."""
        for column, known in enumerate(self._known):
            mine = Counter(row[column].strip() for row in rows)
            if all(count + known[value] > 1 for value, count in mine.items()):
                return True
            if self._is_numeric[column] and all(map(_is_number, mine)):
                return True
        return False


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
