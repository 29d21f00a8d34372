"""The readers of data files, by suffix."""

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
"""Reader by suffix in lower case; the suffixes are `DATA_SUFFIXES` of the catalog, which the config uses."""


def reader_of(path: Path) -> Reader | None:
    """The reader for a file's suffix, in any case of letters; None where its format is unknown."""
    return READERS.get(path.suffix.lower())
