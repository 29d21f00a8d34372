"""A clean copy of the data, for `hpo check --fix`: rows that are sound and unique, and a list of those left out.

Values are not changed. Invalid rows, duplicates and leaks between splits are left out, each with the reason; rows that
differ only in what the tokenizer drops are duplicates too.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainers.data.sources import DataProblem, Row
from trainers.data.splits import SPLITS, Placed, Repeat, drop_alike
from trainers.prepare.prepared import Given
from trainers.protocol.checked_facts import CleanCopy, Dropped
from trainers.protocol.events import Finding
from trainers.protocol.files import sync_folder


def clean_copy(
    folder: Path, given: Given, kept: Mapping[str, Sequence[Placed[Any]]], repeats: Sequence[Repeat[Placed[Any]]],
    marked: Sequence[str], read: Callable[[str], str] | None,
) -> CleanCopy:  # fmt: skip
    """Write the rows in `kept` of every split that the data names to `folder`/SPLIT.jsonl; of rows that are alike as
    the tokenizer reads them (`read`) only one.

    `folder` must not exist; a rename creates it complete. Raises `DataProblem` for values that JSON cannot represent.
    """
    alike: list[Repeat[Placed[Any]]] = []
    if read is not None:
        kept, alike = drop_alike(kept, read)
    named = {name: [row.row for row in kept[name]] for name in SPLITS if name in given.splits}
    rows = [row for many in named.values() for row in many]
    if findings := [*_running_text(rows), *not_json(rows)]:
        raise DataProblem(findings)
    _write(folder, named)
    dropped = [row for name in named for row in _dropped(name, given, repeats, alike)]
    return CleanCopy(str(folder), {name: len(rows) for name, rows in named.items()}, dropped, list(marked))


def _running_text(rows: Sequence[Row]) -> Iterator[Finding]:
    """A finding at the first row of running text: as a row of JSON Lines it would be a text by itself."""
    first = next((row for row in rows if row.is_document), None)
    if first is not None:
        found = "is running text, of which there is no clean copy: JSON Lines hold separate texts"
        yield Finding(first.where, found, "correct the file itself")


def not_json(rows: Sequence[Row]) -> Iterator[Finding]:
    """A finding at the first row of each column with values that JSON cannot represent, such as dates or bytes."""
    reported: set[str] = set()
    for row in rows:
        for column, value in row.values.items():
            try:
                json.dumps(value)
            except TypeError as error:
                if column not in reported:
                    yield Finding(row.where, f"{column}: {error}", "leave the column out of the source")
                reported.add(column)


def _write(folder: Path, splits: Mapping[str, Sequence[Row]]) -> None:
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}")
    scratch.mkdir(parents=True)
    try:
        for name, rows in splits.items():
            with (scratch / f"{name}.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row.values, ensure_ascii=False) + "\n" for row in rows)
                file.flush()
                os.fsync(file.fileno())
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch)
        raise
    sync_folder(folder.parent)


def _dropped(
    name: str, given: Given, repeats: Sequence[Repeat[Placed[Any]]], alike: Sequence[Repeat[Placed[Any]]]
) -> list[Dropped]:
    """The rows of a split that its copy leaves out."""
    unsound = [Dropped(name, found[0].where, _why_unsound(found)) for found in given.unsound[name]]
    unsound += [Dropped(name, r.row.row.where, _why_repeated(r)) for r in repeats if r.split == name]
    return unsound + [Dropped(name, r.row.row.where, _why_alike(r)) for r in alike if r.split == name]


def _why_unsound(findings: Sequence[Finding]) -> str:
    first, *others = findings
    return "; ".join([first.found, *(f"{finding.where}: {finding.found}" for finding in others)])


def _why_repeated(repeat: Repeat[Placed[Any]]) -> str:
    differs = "" if repeat.row.row.values == repeat.kept.row.values else ", with other values"
    return f"has the same input as {_place_of_kept(repeat)}{differs}"


def _why_alike(repeat: Repeat[Placed[Any]]) -> str:
    return f"is {_place_of_kept(repeat)} but for case, accents or spaces that the tokenizer drops"


def _place_of_kept(repeat: Repeat[Placed[Any]]) -> str:
    return repeat.kept.row.where + (f" of {repeat.kept_split}" if repeat.kept_split != repeat.split else "")
