"""Quotes in tables: whether a table with tabs is quoted at all, and whether a quoted cell swallows rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

LINE_END = re.compile(r"\r\n|\r|\n")
MANY = 3
"""This many cells do not agree by chance."""
_CELL = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^"\t\r\n]*))(\t|\r\n|\r|\n|\Z)')
"""A cell, quoted or not, and its end; quotes are allowed nowhere else."""


@dataclass(frozen=True)
class Record:
    """One row of cells, and its first line."""

    line: int
    cells: list[str]

    @property
    def lines(self) -> int:
        """The number of its lines."""
        return 1 + sum(len(LINE_END.findall(cell)) for cell in self.cells if "\n" in cell or "\r" in cell)


def surely_quoted(text: str, first: int, raw: Sequence[Record]) -> list[Record] | None:
    """The records of a table with tabs whose quotes certainly enclose cells; None where they may be part of the text.

    It is certain where each quote opens or closes a cell or is doubled inside one, all rows are as wide as the header,
    and the quoting looks like a program's. `raw` is the table without quoting; it begins in line `first`.
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
    """The character after the cell; None where a quote is not allowed."""


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
    """Whether the whole header is quoted, a quote is doubled, or exactly the cells with a comma are quoted, as `csv`,
    pandas and spreadsheets do."""
    quoted = [cell for cell in cells if cell.is_quoted]
    if all(cell.is_quoted for cell in cells[:width]) or any('"' in cell.text for cell in quoted):
        return True
    has_comma = all("," in cell.text for cell in quoted)
    return len(quoted) >= MANY and has_comma and not any("," in cell.text for cell in cells if not cell.is_quoted)


class Swallowing:
    """Finds cells that contain whole rows, because a quote in them is part of the text."""

    def __init__(self, rows: Sequence[Record], delimiter: str, width: int) -> None:
        """`rows` are all rows of the table, including those to check; `width` is the number of columns."""
        sound = [row.cells for row in rows if len(row.cells) == width and row.lines == 1]
        self._delimiter, self._width = delimiter, width
        self._known = [Counter(cells[column].strip() for cells in sound) for column in range(width)]
        self._is_numeric = [len(known) >= MANY and all(map(_is_number, known)) for known in self._known]

    def swallowed(self, record: Record) -> int:
        """How many lines of a record look like separate rows: as wide as the table, with values that occur elsewhere.

        It is 0 for a table of one column, where every line looks so.
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
        """Whether a column of these rows has only values that occur elsewhere in the column, or only numbers."""
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
