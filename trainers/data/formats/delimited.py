"""Tables as text: `.csv` and `.tsv`, also as spreadsheets of other countries write them.

One with commas or semicolons is quoted as RFC 4180 says. One with tabs is not, unless it surely is (`quoting.py`): a
stray quote must never swallow the rows that follow it.
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
from trainers.protocol.messages import Finding

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
SAMPLE = 1000
"""Lines that a delimiter is judged by."""
_SPREADSHEET_HINT = re.compile(r"sep=(.)\s*")


@dataclass(frozen=True)
class Table:
    """A file cut into lines, and what stands between its columns."""

    path: Path
    lines: list[str]
    """With their ends."""
    delimiter: str
    first: int
    """The number of the first one."""


def read(path: Path, reading: Reading) -> Iterator[Entry]:
    """A row of texts for each record after the header. Cells may be of any length.

    Raises `DataProblem` where quotes leave open where rows end, and where the header names a column twice.
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
    """Why a record is no row."""
    where, width = f"{table.path}:{record.line}", len(header.cells)
    if len(record.cells) != width:
        found = "has too many or too few columns"
        return [Finding(where, found, f"expected {width} as in the header, found {len(record.cells)}")]
    if any("\0" in cell for cell in record.cells):
        return [Finding(where, "holds a NUL character", "expected text")]
    if lines := swallowed.get(record.line):
        found = f"a quote that is closed too late makes one cell of {lines:,} lines that look like rows"
        return [Finding(where, found, "close the quote in its own line, or write it twice inside quotes")]
    return []


def _line_ends_inside(table: Table, header: Record, rows: Sequence[Record], reading: Reading) -> dict[int, int]:
    """Lines of records whose cells swallow rows, and how many; records of several lines are counted in a note."""
    long = [record for record in rows if record.lines > 1]
    if not long:
        return {}
    longest = max(long, key=lambda record: record.lines)
    counted = f"{len(long):,} rows hold" if len(long) > 1 else "1 row holds"
    place = f"{table.path}:{longest.line}"
    reading.notes.append(f"{counted} line ends inside cells; the longest is {longest.lines:,} lines: {place}")
    swallowing = Swallowing(rows, table.delimiter, len(header.cells))
    return {record.line: swallowing.swallowed(record) for record in long}


def _columns(path: Path, header: Record, rows: Sequence[Record]) -> dict[str, int]:
    """Name of each column and where it stands. One without a name is called as pandas does, `Unnamed: 0`, and is none
    where all its cells are empty.

    Raises `DataProblem` where two have one name.
    """
    columns: list[tuple[str, int]] = []
    for at, cell in enumerate(header.cells):
        name = cell.strip()
        if name or any(row.cells[at] for row in rows if at < len(row.cells)):
            columns.append((name or f"Unnamed: {at}", at))
    twice = [name for name, count in Counter(name for name, _ in columns).items() if count > 1]
    if twice:
        found = f"has several columns of one name: {names(twice)}"
        raise refused(f"{path}:{header.line}", found, "expected a name of its own for each column")
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
        reading.notes.append(f"{path} has {DELIMITERS[delimiter]} between its columns, and is read so")
    return Table(path, lines, delimiter, 1)


def _delimiter(lines: Sequence[str], usual: str) -> str:
    """What stands between columns: the usual, unless another parts the header and makes more rows as wide as it."""

    def fitting(delimiter: str) -> float:
        rows = [cells for cells in csv.reader(lines, delimiter=delimiter) if cells]
        width = len(rows[0]) if rows else 1
        return sum(len(cells) == width for cells in rows) / len(rows) if width > 1 else 0.0

    with _cells_of_any_length():
        return max([usual, *(other for other in DELIMITERS if other != usual)], key=fitting)


def _quoted(table: Table) -> list[Record]:
    """The records of a table that is quoted as RFC 4180 says. Raises `DataProblem` where it is not."""
    records, start = [], 0
    reader = csv.reader(table.lines, delimiter=table.delimiter, strict=True)
    try:
        with _cells_of_any_length():
            for cells in reader:
                if cells:  # an empty line is no row
                    records.append(Record(table.first + start, cells))
                start = reader.line_num
    except csv.Error as error:  # where the next row begins would be a guess
        found = f"is not CSV from here on: {error}"
        raise refused(f"{table.path}:{table.first + start}", found, "a quote in quotes is written twice") from error
    return records


def _tabbed(table: Table) -> list[Record]:
    """The records of a table with tabs: its lines, or what its quotes enclose where it is surely quoted."""
    lines = [line.rstrip("\r\n") for line in table.lines]
    raw = [Record(number, line.split("\t")) for number, line in enumerate(lines, table.first) if line]
    if not any('"' in line for line in lines):
        return raw
    return surely_quoted("".join(table.lines), table.first, raw) or raw


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """`csv` refuses cells of more than 131,072 characters; the limit is that of the whole process."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)
