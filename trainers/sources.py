"""Rows from files and hubs, each with the place it came from, so that a problem can name its line."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.spec import Finding

MAX_FINDINGS = 20


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


def read_rows(source: str, split: str, findings: list[Finding]) -> list[Row]:
    """All rows of a file or a hub data set. Rows that do not parse become findings.

    Raises `DataProblem` when the source as a whole cannot be read.
    """
    path = Path(source)
    try:
        if not path.is_absolute():  # the config makes every file absolute
            return list(_hub_rows(source, split))
        rows: list[Row] = []
        for file in files_of(path):
            rows += READERS[file.suffix](file, findings)
        return rows
    except UnicodeDecodeError as error:
        raise DataProblem([Finding(source, f"is not UTF-8 text (byte {error.start})", "save it as UTF-8")]) from error


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


def _jsonl(path: Path, findings: list[Finding]) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                findings.append(Finding(where, f"is not JSON: {error.msg} (column {error.colno})", "one object a line"))
                continue
            if isinstance(values, dict):
                yield Row(where, values)
            else:
                findings.append(Finding(where, f"is {type(values).__name__}, not an object", "one object a line"))


def _json(path: Path, findings: list[Finding]) -> Iterator[Row]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataProblem([Finding(f"{path}:{error.lineno}", f"is not JSON: {error.msg}")]) from error
    if not isinstance(values, list):
        raise DataProblem([Finding(str(path), f"holds {type(values).__name__}", "expected a list of objects")])
    for number, value in enumerate(values, 1):
        if isinstance(value, dict):
            yield Row(f"{path} item {number}", value)
        else:
            findings.append(Finding(f"{path} item {number}", f"is {type(value).__name__}, not an object"))


def _txt(path: Path, findings: list[Finding]) -> Iterator[Row]:
    """A row for each line that is not empty."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if text := line.strip():
                yield Row(f"{path}:{number}", {"text": text})


def _conll(path: Path, findings: list[Finding]) -> Iterator[Row]:
    """A sentence for each block of lines: the word in a line's first column, its tag in the last."""
    words: list[str] = []
    tags: list[str] = []
    start, width = 1, 0
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(itertools.chain(file, [""]), 1):
            columns = line.split()
            if columns and columns[0] != "-DOCSTART-":
                width = width or len(columns)
                if len(columns) != width or width < 2:
                    expected = f"expected {max(2, width)}: the word first, its tag last"
                    findings.append(Finding(f"{path}:{number}", f"has {len(columns)} columns", expected))
                    continue
                start = start if words else number
                words.append(columns[0])
                tags.append(columns[-1])
            elif words:
                yield Row(f"{path}:{start}", {"words": words, "tags": tags})
                words, tags = [], []


def _csv(path: Path, findings: list[Finding]) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        line = 2
        try:
            for values in reader:
                where, line = f"{path}:{line}", reader.line_num + 1
                if None in values or None in values.values():
                    wide = len(reader.fieldnames or [])
                    findings.append(Finding(where, "has too many or too few columns", f"expected {wide}"))
                else:
                    yield Row(where, dict(values))
        except csv.Error as error:
            findings.append(Finding(f"{path}:{reader.line_num}", f"is not CSV: {error}"))


def _parquet(path: Path, findings: list[Finding]) -> Iterator[Row]:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataProblem([Finding(str(path), f"is not Parquet: {error}")]) from error
    for number, values in enumerate(table.to_pylist(), 1):
        yield Row(f"{path} row {number}", values)


READERS = {
    ".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet, ".txt": _txt, ".conll": _conll,
}  # fmt: skip


def _hub_rows(source: str, split: str) -> Iterator[Row]:
    import datasets

    try:
        rows = datasets.load_dataset(source, split=split)
    except Exception as error:  # the hub client raises what it likes; all of it means the data cannot be had
        first_line = str(error).splitlines()[0]
        raise DataProblem(
            [Finding(f"data.{split}", f"{source}: {first_line}", "a file or a reachable hub id")]
        ) from error
    for number, values in enumerate(rows, 1):
        yield Row(f"{source}[{split}] row {number}", dict(values))
