"""Tables as text: `.csv` and `.tsv`, also as spreadsheets in other countries write them.

Tables with commas or semicolons are quoted as in RFC 4180. A table with tabs is not quoted, unless that is certain
(`quoting.py`): a stray quote must never swallow the rows after it.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainers.data.formats.base import Entry, Reading, Row, names, refused
from trainers.data.formats.quoting import Record, Swallowing, surely_quoted
from trainers.data.formats.text_files import opened
from trainers.protocol.events import Finding

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
SAMPLE = 1000
"""Lines that decide about the delimiter."""
_SPREADSHEET_HINT = re.compile(r"sep=(.)\s*")


@dataclass(frozen=True)
class Table:
    """A file as lines, with the delimiter of its columns."""

    path: Path
    lines: list[str]
    """The lines with their line ends."""
    delimiter: str
    first: int
    """The number of the first line."""


def read(path: Path, reading: Reading) -> Iterator[Entry]:
    """A row of texts for each record after the header; cells may have any length.

    Raises `DataProblem` where quotes make the end of rows unclear, and where the header names a column twice.
    """
    table = _table(path, reading)
    records = _tabbed(table) if table.delimiter == "\t" else _quoted(table)
    if not records:
        return
    header, *rows = records
    columns = _columns(path, header, rows)
    swallowed = _line_ends_inside(table, header, rows, reading)
    for record in rows:
        values = {name: record.cells[at] for name, at in columns.items() if at < len(record.cells)}
        yield _wrong(table, header, record, swallowed) or Row(f"{path}:{record.line}", values)


def _wrong(table: Table, header: Record, record: Record, swallowed: dict[int, int]) -> list[Finding]:
    """The findings that make a record invalid."""
    where, width = f"{table.path}:{record.line}", len(header.cells)
    if len(record.cells) != width:
        found = "has too many or too few columns"
        return [Finding(where, found, f"expected {width} as in the header, found {len(record.cells)}")]
    if any("\0" in cell for cell in record.cells):
        return [Finding(where, "contains a NUL character", "expected text")]
    if lines := swallowed.get(record.line):
        found = f"a quote that is closed too late makes one cell of {lines:,} lines that look like rows"
        return [Finding(where, found, "close the quote on its own line, or write it twice inside quotes")]
    return []


def _line_ends_inside(table: Table, header: Record, rows: Sequence[Record], reading: Reading) -> dict[int, int]:
    """Line of a record with swallowed rows -> their number; adds a note on records of several lines."""
    long = [record for record in rows if record.lines > 1]
    if not long:
        return {}
    longest = max(long, key=lambda record: record.lines)
    counted = f"{len(long):,} rows have" if len(long) > 1 else "1 row has"
    place = f"{table.path}:{longest.line}"
    reading.notes.append(f"{counted} line ends inside cells; the longest is {longest.lines:,} lines: {place}")
    swallowing = Swallowing(rows, table.delimiter, len(header.cells))
    return {record.line: swallowing.swallowed(record) for record in long}


def _columns(path: Path, header: Record, rows: Sequence[Record]) -> dict[str, int]:
    """Name -> position of each column.

    A column without a name is called `Unnamed: 0` as in pandas, or left out where all its cells are empty. Raises
    `DataProblem` where two columns have the same name.
    """
    columns: list[tuple[str, int]] = []
    for at, cell in enumerate(header.cells):
        name = cell.strip()
        if name or any(row.cells[at] for row in rows if at < len(row.cells)):
            columns.append((name or f"Unnamed: {at}", at))
    twice = [name for name, count in Counter(name for name, _ in columns).items() if count > 1]
    if twice:
        found = f"has several columns with the same name: {names(twice)}"
        raise refused(f"{path}:{header.line}", found, "expected different names")
    return dict(columns)


def _table(path: Path, reading: Reading) -> Table:
    with opened(path, newline="") as file:
        lines = list(file)
    hint = _SPREADSHEET_HINT.fullmatch(lines[0]) if lines else None
    if hint is not None:
        return Table(path, lines[1:], hint[1], 2)
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    delimiter = _delimiter(lines[:SAMPLE], usual)
    if delimiter != usual:
        reading.notes.append(f"{path} is read with {DELIMITERS[delimiter]} between its columns")
    return Table(path, lines, delimiter, 1)


def _delimiter(lines: Sequence[str], usual: str) -> str:
    """The delimiter: the usual one, unless with another one more rows are as wide as the header."""

    def fitting(delimiter: str) -> float:
        rows = [cells for cells in csv.reader(lines, delimiter=delimiter) if cells]
        width = len(rows[0]) if rows else 1
        return sum(len(cells) == width for cells in rows) / len(rows) if width > 1 else 0.0

    with _cells_of_any_length():
        return max([usual, *(other for other in DELIMITERS if other != usual)], key=fitting)


def _quoted(table: Table) -> list[Record]:
    """The records of a table that is quoted as in RFC 4180. Raises `DataProblem` where it is not."""
    records, start = [], 0
    reader = csv.reader(table.lines, delimiter=table.delimiter, strict=True)
    try:
        with _cells_of_any_length():
            for cells in reader:
                if cells:  # skip empty lines
                    records.append(Record(table.first + start, cells))
                start = reader.line_num
    except csv.Error as error:  # the start of the next row would be a guess
        found = f"is not CSV from here on: {error}"
        raise refused(f"{table.path}:{table.first + start}", found, "write a quote inside quotes twice") from error
    return records


def _tabbed(table: Table) -> list[Record]:
    """The records of a table with tabs: its lines, or its quoted records where it certainly is quoted."""
    lines = [line.rstrip("\r\n") for line in table.lines]
    raw = [Record(number, line.split("\t")) for number, line in enumerate(lines, table.first) if line]
    if not any('"' in line for line in lines):
        return raw
    return surely_quoted("".join(table.lines), table.first, raw) or raw


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """Lift `csv`'s limit of 131,072 characters in a cell, which applies to the whole process."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)
