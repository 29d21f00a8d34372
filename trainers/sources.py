"""Rows from files and hubs, each with the place it came from, so that a problem can name its line."""

from __future__ import annotations

import codecs
import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.slices import parse_slice
from trainers.spec import Finding, SourceRef

MAX_FINDINGS = 20
MAX_PLACES = 3


class DataProblem(Exception):
    """Data or model that no trial can use: every finding, up to `MAX_FINDINGS` and a count of the rest."""

    def __init__(self, findings: list[Finding]) -> None:
        shown = findings[:MAX_FINDINGS]
        if rest := len(findings) - len(shown):
            shown.append(Finding(findings[-1].where.split(":")[0], f"and {rest} more problems like these"))
        self.findings = shown
        super().__init__("; ".join(f"{f.where}: {f.found}" for f in shown))


@dataclass(frozen=True)
class Row:
    """One row and where it stands: `FILE:LINE`, or `SOURCE row N`."""

    where: str
    values: dict[str, Any]


def places(wheres: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = len(wheres) - MAX_PLACES
    return ", ".join(wheres[:MAX_PLACES]) + (f" and {more} more" if more > 0 else "")


Entry = Row | list[Finding]
"""A row as it stands in its source, or all that is wrong with it."""


def read_rows(source: SourceRef, role: str, unsound: list[list[Finding]]) -> list[Row]:
    """The rows of files or of a hub data set. What is wrong with those that do not parse goes to `unsound`.

    Raises `DataProblem` when the source as a whole cannot be read.
    """
    rows: list[Row] = []
    for entry in _hub_rows(source, role) if source.is_hub else _file_entries(source):
        if isinstance(entry, Row):
            rows.append(entry)
        else:
            unsound.append(entry)
    return rows


def files_of(path: Path) -> list[Path]:
    """The file itself, the files of known formats in a folder, or those that a pattern matches, by name.

    Raises `DataProblem` where there is none.
    """
    if path.is_file():
        return [path]
    found = path.iterdir() if path.is_dir() else path.parent.glob(path.name)
    files = sorted(file for file in found if file.is_file() and file.suffix in READERS)
    if not files:
        raise DataProblem([Finding(str(path), "holds no data file", f"files of {', '.join(READERS)}")])
    return files


def marked_files(source: SourceRef) -> list[str]:
    """The files of a source that begin with a byte order mark, which is no part of their first row."""
    files = [] if source.is_hub else files_of(Path(source.source))
    return [str(file) for file in files if _begins_with(file, codecs.BOM_UTF8)]


def _begins_with(file: Path, mark: bytes) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(mark)) == mark


def _file_entries(source: SourceRef) -> Iterator[Entry]:
    """The entries of all files, one after the other, or the slice of them that is asked for."""
    entries = (entry for file in files_of(Path(source.source)) for entry in _entries(file))
    return entries if source.split is None else parse_slice(source.split).take(entries)


def _entries(file: Path) -> Iterator[Entry]:
    try:
        yield from READERS[file.suffix](file)
    except UnicodeDecodeError as error:
        where = f"{file}:{_undecodable_line(file)}"
        raise DataProblem([Finding(where, "is not UTF-8 text", "save it as UTF-8")]) from error


def _undecodable_line(file: Path) -> int:
    """The first line that is not UTF-8, from 1."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    raise ValueError(f"{file} is UTF-8")


def _jsonl(path: Path) -> Iterator[Entry]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _json_row(line, f"{path}:{number}")


def _json_row(line: str, where: str) -> Entry:
    try:
        return _object(json.loads(line), where, "one object a line")
    except json.JSONDecodeError as error:
        return [Finding(where, f"is not JSON: {error.msg} (column {error.colno})", "one object a line")]
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        return [Finding(where, f"is no JSON that can be read: {error}", "one object a line")]


def _json(path: Path) -> Iterator[Entry]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataProblem([Finding(f"{path}:{error.lineno}", f"is not JSON: {error.msg}")]) from error
    except (ValueError, RecursionError) as error:  # as above
        raise DataProblem([Finding(str(path), f"is no JSON that can be read: {error}")]) from error
    if not isinstance(values, list):
        raise DataProblem([Finding(str(path), f"holds {type(values).__name__}", "expected a list of objects")])
    for number, value in enumerate(values, 1):
        yield _object(value, f"{path} item {number}", "expected a list of objects")


def _object(value: Any, where: str, expected: str) -> Entry:
    """A JSON value as a row. Escapes can say half a character, which no tokenizer and no file takes."""
    if not isinstance(value, dict):
        return [Finding(where, f"is {type(value).__name__}, not an object", expected)]
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return [Finding(where, "holds half a character (a lone surrogate such as \\ud83d)", "whole characters")]
    return Row(where, value)


def _txt(path: Path) -> Iterator[Entry]:
    """A row for each line that is not empty."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if text := line.strip():
                yield Row(f"{path}:{number}", {"text": text})


def _conll(path: Path) -> Iterator[Entry]:
    """A sentence for each block of lines: the word in a line's first column, its tag in the last."""
    words: list[str] = []
    tags: list[str] = []
    wrong: list[Finding] = []
    start, width = 1, 0
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(itertools.chain(file, [""]), 1):
            columns = line.split()
            if columns and columns[0] != "-DOCSTART-":
                width = width or len(columns)
                if len(columns) != width or width < 2:
                    found = f"has {len(columns)} column{'s' * (len(columns) != 1)}"
                    expected = f"expected {max(2, width)}: the word first, its tag last"
                    wrong.append(Finding(f"{path}:{number}", found, expected))
                start = start if words else number
                words.append(columns[0])
                tags.append(columns[-1])
            elif words:
                yield wrong or Row(f"{path}:{start}", {"words": words, "tags": tags})
                words, tags, wrong = [], [], []


def _csv(path: Path) -> Iterator[Entry]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        names: list[str] = []
        start = 1
        try:
            for cells in reader:
                where, start = f"{path}:{start}", reader.line_num + 1
                if not cells:  # an empty line
                    continue
                if not names:
                    names = cells
                elif len(cells) == len(names):
                    yield Row(where, dict(zip(names, cells, strict=True)))
                else:
                    yield [Finding(where, "has too many or too few columns", f"expected {len(names)}")]
        except csv.Error as error:  # where the next row begins would be a guess
            found = f"is not CSV from here on: {error}"
            raise DataProblem([Finding(f"{path}:{start}", found, "a quote in quotes is written twice")]) from error


def _parquet(path: Path) -> Iterator[Entry]:
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataProblem([Finding(str(path), f"is not Parquet: {error}")]) from error
    except UnicodeDecodeError as error:
        raise DataProblem([Finding(str(path), f"holds text that is not UTF-8: {error}")]) from error
    for number, values in enumerate(rows, 1):
        yield Row(f"{path} row {number}", values)


READERS = {
    ".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet, ".txt": _txt, ".conll": _conll,
}  # fmt: skip


def _hub_rows(source: SourceRef, role: str) -> Iterator[Row]:
    import datasets

    split = source.split or role
    try:
        rows = datasets.load_dataset(source.source, name=source.config, revision=source.revision, split=split)
    except Exception as error:  # the hub client raises what it likes; all of it means the data cannot be had
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        found = f"{source.source}: no such file or folder beside the YAML, and the hub has no answer: {first_line}"
        expected = "a file, a folder, or a hub id that can be reached, with its config and split"
        raise DataProblem([Finding(f"data.{role}", found, expected)]) from error
    for number, values in enumerate(rows, 1):
        yield Row(f"{source.source}[{split}] row {number}", dict(values))
