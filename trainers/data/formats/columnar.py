"""Parquet and Arrow files, read in batches, so that a slice reads only the batches it needs.

Numbers that the hub's `datasets` declares as classes become the names of the classes, and JSON is parsed
(`features.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainers.data.formats.base import Entry, Reading, Row, names, refused
from trainers.data.formats.features import Decoder, Undecodable, declared_features, decoders
from trainers.protocol.events import Finding

BATCH = 1024
"""Rows that are read at a time."""
PARQUET, ARROW_FILE = b"PAR1", b"ARROW1"


def read_parquet(path: Path, reading: Reading) -> Iterator[Entry]:
    """The rows of a Parquet file, numbered from 1. Raises `DataProblem` where it is not Parquet, or incomplete."""
    import pyarrow.parquet

    _check_ends(path)
    with _readable(path, "Parquet"), pyarrow.parquet.ParquetFile(path) as file:
        yield from entries_of_batches(str(path), file.schema_arrow, file.iter_batches(batch_size=BATCH), reading)


def read_arrow(path: Path, reading: Reading) -> Iterator[Entry]:
    """The rows of an Arrow file, or of a stream as `datasets` saves it. Raises `DataProblem` where it is damaged."""
    import pyarrow

    with path.open("rb") as opened:
        begins = opened.read(len(ARROW_FILE))
    if not begins:
        raise refused(path, "is empty", "at least one row")
    with _readable(path, "Arrow"), pyarrow.OSFile(str(path)) as source:
        if begins == ARROW_FILE:
            with pyarrow.ipc.open_file(source) as file:
                batches = (file.get_batch(number) for number in range(file.num_record_batches))
                yield from entries_of_batches(str(path), file.schema, batches, reading)
        else:
            with pyarrow.ipc.open_stream(source) as stream:
                yield from entries_of_batches(str(path), stream.schema, stream, reading)


def _check_ends(path: Path) -> None:
    """Raise `DataProblem` where a file does not begin and end as Parquet does."""
    with path.open("rb") as file:
        begins = file.read(len(PARQUET)) == PARQUET
        size = file.seek(0, 2)
        file.seek(max(0, size - len(PARQUET)))
        ends = file.read() == PARQUET
    if size == 0:
        raise refused(path, "is empty", "at least one row")
    if not begins:
        raise refused(path, "is not Parquet: it does not begin with PAR1", "a file of the format of its suffix")
    if not ends or size < 12:
        raise refused(path, f"is incomplete: the end is missing after {size:,} bytes", "copy or download it again")


@contextmanager
def _readable(path: Path, kind: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise refused(path, f"cannot be read as {kind}: {error!s:.200}", "copy or download it again") from error


def entries_of_batches(source: str, schema: Any, batches: Iterable[Any], reading: Reading) -> Iterator[Entry]:
    """The rows of pyarrow's record batches, numbered from 1 over all batches.

    Raises `DataProblem` where several columns have the same name.
    """
    twice = [name for name, count in Counter(schema.names).items() if count > 1]
    if twice:
        raise refused(source, f"has several columns with the same name: {names(twice)}", "different names")
    decoding = decoders(declared_features(schema.metadata))
    unreadable: Counter[str] = Counter()
    number = 0
    for batch in batches:
        columns = [_values(column, name, unreadable) for name, column in zip(schema.names, batch.columns, strict=True)]
        for cells in zip(*columns, strict=True):
            number += 1
            yield _entry(f"{source} row {number}", dict(zip(schema.names, cells, strict=True)), decoding)
    for name, count in unreadable.items():
        what = f"{count:,} values of {name} are" if count > 1 else f"1 value of {name} is"
        kind, counts = schema.field(name).type, "count" if count > 1 else "counts"
        reading.notes.append(f"{source}: {what} out of range of {kind!s:.100}, and {counts} as missing")


def _values(column: Any, name: str, unreadable: Counter[str]) -> list[Any]:
    """The values of a column; a value that Python cannot represent (a date in the year 300,000) is missing."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):
        return [_value(scalar, name, unreadable) for scalar in column]


def _value(scalar: Any, name: str, unreadable: Counter[str]) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return error
    except (ValueError, OverflowError):
        unreadable[name] += 1
        return None


def _entry(where: str, values: dict[str, Any], decoding: dict[str, Decoder]) -> Entry:
    """A row with its values decoded, or the findings about them."""
    wrong = []
    for column, value in values.items():
        if isinstance(value, UnicodeDecodeError):
            wrong.append(Finding(where, f"{column} is not UTF-8 text: {value.reason}", "UTF-8"))
        elif column in decoding:
            try:
                values[column] = decoding[column](value)
            except Undecodable as error:
                wrong.append(Finding(where, f"{column} {error.found}", error.expected))
    return wrong or Row(where, values)
