"""Frozen rows on disk: a folder named by the hash of its files, which appears whole or not at all"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.data.formats.base import DataProblem
from trainers.data.sides import SIDES
from trainers.protocol.codec import RECORD_FORMAT, to_file
from trainers.protocol.events import Finding
from trainers.protocol.files import file_hash, joint_fingerprint, replace_folder, sync_folder

INDEX = "index.tsv"
"""A line for each row: its side, and the hashes of its input and of everything in it."""
ABOUT = "about.json"
_SCRATCH = ".new"


@dataclass(frozen=True)
class Indexed:
    """A row as two nights are compared."""

    side: str
    input: str
    """Hash of what the row is recognised by."""
    content: str
    """Hash of the row, with its label or answer."""


@dataclass(frozen=True)
class About:
    """What the files of a folder hold; nothing of when or where from, so that equal rows have equal folders."""

    task: str
    rows: dict[str, int]
    labels: dict[str, dict[str, int]]
    is_running_text: bool
    format: int = RECORD_FORMAT


@dataclass(frozen=True)
class RowDifference:
    """How the rows of two nights differ, counted by side."""

    added: dict[str, int]
    gone: dict[str, int]
    relabelled: dict[str, int]
    taken_from_train: int
    """Rows that are held out now and were trained on before."""


def content_hash(values: Mapping[str, Any]) -> str:
    """16 hex digits of a row's values."""
    return hashlib.sha256(json_line(values).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def json_line(values: Mapping[str, Any]) -> str:
    """A row as a line of JSON Lines. Raises `TypeError` for values that JSON cannot represent."""
    return json.dumps(values, ensure_ascii=False) + "\n"


def write_rows(
    parent: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]], index: Iterable[Indexed], about: About
) -> tuple[str, Path]:
    """Write SIDE.jsonl, the index and the description into a folder below `parent`: (its hash, the folder).

    A folder that is there already is used again where its files are still what they were. Raises `OSError`.
    """
    parent.mkdir(parents=True, exist_ok=True)
    scratch = parent / _SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)  # of a night that was killed
    scratch.mkdir()
    for side in SIDES:
        _write(scratch / f"{side}.jsonl", map(json_line, rows[side]))
    _write(scratch / INDEX, (f"{one.side}\t{one.input}\t{one.content}\n" for one in index))
    _write(scratch / ABOUT, [to_file(about)])
    sync_folder(scratch)
    digest = folder_hash(scratch)
    folder = parent / digest
    if folder.is_dir() and folder_hash(folder) == digest:
        shutil.rmtree(scratch)
    else:
        replace_folder(scratch, folder)
        sync_folder(parent)
    return digest, folder


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of a folder's files."""
    return joint_fingerprint((file.name, file_hash(file)) for file in folder.iterdir() if file.is_file())


def read_index(folder: Path) -> list[Indexed]:
    """The rows of a folder as they are compared. Raises `DataProblem` where it cannot be read."""
    path = folder / INDEX
    try:
        return [Indexed(*line.split("\t")) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, TypeError) as error:
        found = f"cannot be read: {error!s:.100}"
        raise DataProblem([Finding(str(path), found, "the frozen rows of an earlier night")]) from error


def difference(before: Iterable[Indexed], now: Iterable[Indexed]) -> RowDifference:
    """Rows are the same where their inputs are."""
    earlier, later = _by_input(before), _by_input(now)
    added, gone, relabelled = Counter[str](), Counter[str](), Counter[str]()
    taken = 0
    for key, (side, contents) in later.items():
        if key not in earlier:
            added[side] += len(contents)
        elif earlier[key][1] != contents:
            relabelled[side] += 1
    for key, (side, contents) in earlier.items():
        if key not in later:
            gone[side] += len(contents)
        elif side == "train" != later[key][0]:
            taken += 1
    return RowDifference(_by_side(added), _by_side(gone), _by_side(relabelled), taken)


def _by_side(counts: Mapping[str, int]) -> dict[str, int]:
    return {side: counts.get(side, 0) for side in SIDES}


def _by_input(rows: Iterable[Indexed]) -> dict[str, tuple[str, list[str]]]:
    found: dict[str, tuple[str, list[str]]] = {}
    contents: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        contents[row.input].append(row.content)
        found[row.input] = row.side, contents[row.input]
    return {key: (side, sorted(many)) for key, (side, many) in found.items()}


def _write(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
