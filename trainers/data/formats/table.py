"""Which reader takes which file."""

from __future__ import annotations

from pathlib import Path

from trainers.data.formats import columnar, delimited, documents, json_files, tagged
from trainers.data.formats.base import Reader

READERS: dict[str, Reader] = {
    ".jsonl": json_files.read_lines, ".ndjson": json_files.read_lines, ".json": json_files.read_whole,
    ".csv": delimited.read, ".tsv": delimited.read, ".parquet": columnar.read_parquet, ".arrow": columnar.read_arrow,
    ".txt": documents.read, ".conll": tagged.read, ".conllu": tagged.read, ".bio": tagged.read, ".iob": tagged.read,
    ".iob2": tagged.read,
}  # fmt: skip
"""By suffix, in small letters: `DATA_SUFFIXES` of the catalog, which the config knows."""


def reader_of(path: Path) -> Reader | None:
    """The reader of a file by its suffix, in capitals or not; None where its format is not known."""
    return READERS.get(path.suffix.lower())
