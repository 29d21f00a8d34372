"""Reads rows from files and the hub, each with its place, so that a problem can name its line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trainers.data.formats.base import MAX_PLACES, DataProblem, Entry, Reading, Row, names_of, places, refused
from trainers.data.formats.table import reader_of
from trainers.data.formats.text_files import has_mark
from trainers.data.hub import hub_entries
from trainers.data.source_files import files_of
from trainers.protocol.events import Finding
from trainers.protocol.slices import parse_slice
from trainers.protocol.trial_spec import SourceRef

__all__ = [
    "MAX_PLACES", "DataProblem", "Row", "files_of", "files_of_source", "marked_files", "names_of", "places",
    "read_rows",
]  # fmt: skip


def read_rows(
    source: SourceRef, role: str, unsound: list[list[Finding]], documents: str = "file", notes: list[str] | None = None
) -> list[Row]:
    """The rows of files or of a hub data set.

    The findings of rows that cannot be parsed are added to `unsound`, and notes on how files were read to `notes`.
    `documents` says what one text of a `.txt` is. Raises `DataProblem` when the whole source cannot be read.
    """
    rows: list[Row] = []
    reading = Reading(documents, [] if notes is None else notes)
    for entry in hub_entries(source, role, reading) if source.is_hub else _file_entries(source, reading):
        if isinstance(entry, Row):
            rows.append(entry)
        else:
            unsound.append(entry)
    return rows


def files_of_source(source: SourceRef) -> list[Path]:
    """The files of a source that is not a hub id. Raises `DataProblem` where there are none."""
    return [Path(file) for file in source.files] or files_of(Path(source.source))


def marked_files(source: SourceRef) -> list[str]:
    """The files of a source that begin with a byte order mark."""
    files = [] if source.is_hub else files_of_source(source)
    return [str(file) for file in files if has_mark(file)]


def _file_entries(source: SourceRef, reading: Reading) -> Iterator[Entry]:
    """The entries of all files, one after the other, or the source's slice of them."""
    entries = (entry for file in files_of_source(source) for entry in _entries(file, reading))
    return entries if source.split is None else parse_slice(source.split).take(entries)


def _entries(file: Path, reading: Reading) -> Iterator[Entry]:
    reader = reader_of(file)
    if reader is None:
        raise refused(file, "has no known format")
    try:
        yield from reader(file, reading)
    except OSError as error:
        raise refused(file, f"cannot be read: {error.strerror}", "a file that you may read") from error
