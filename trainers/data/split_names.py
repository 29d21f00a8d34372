"""Gives each split its own files, or its own split of a hub id, where the data names only where all of it lies.

Files of several splits are never pooled: who trained on test rows would not know it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from trainers.data.formats.base import DataProblem
from trainers.data.hub import splits_of
from trainers.data.sources import read_rows
from trainers.data.split_files import KEYWORDS, WAY_OUT, SplitFiles, role_of_eval, split_files
from trainers.protocol.messages import DataRef, Finding, SourceRef
from trainers.protocol.slices import parse_slice

HELD_OUT = ("validation", "test")
_TARGETS = ("label", "labels", "value", "output")
"""Roles of columns without which a held-out row is of no use."""
_PEEKED = 100
"""Rows that are looked at for them."""


def named_splits(data: DataRef) -> tuple[DataRef, list[str]]:
    """The data with a source for each split that names of files, or the hub, say; and notes on that.

    What the data names itself stays, but of a folder with several splits each takes only its own files. Raises
    `DataProblem` where names leave open which split a file belongs to.
    """
    if data.train.is_hub:
        return _with_held_out(data, _splits_of_hub(data))
    given, folders, findings = data.sources(), dict[str, SplitFiles](), list[Finding]()
    for role, source in given.items():
        if source.is_hub or source.files:
            continue
        try:
            folder = folders.get(source.source) or split_files(source.source)
            if folder is not None:
                folders[source.source] = folder
                given[role] = _own_files(role, source, folder)
        except DataProblem as problem:
            findings += problem.findings
    if findings:
        raise DataProblem(findings)
    train = folders.get(data.train.source)
    found = {} if train is None else {split: _only(train, split) for split in HELD_OUT if split in train.splits}
    split, notes = _with_held_out(data.with_sources(given), found)
    return split, [*(f"data: {folder}" for folder in folders.values()), *notes]


def _own_files(role: str, source: SourceRef, folder: SplitFiles) -> SourceRef:
    """The part of a folder that a split is. Raises `DataProblem` where it has none."""
    split = role if source.split is None else parse_slice(source.split).name
    if split not in folder.splits:
        raise DataProblem([Finding(f"data.{role}", f"{folder}, and none is {split}", WAY_OUT)])
    return dataclasses.replace(_only(folder, split), split=source.split)


def _only(folder: SplitFiles, split: str) -> SourceRef:
    return SourceRef(folder.source, files=[str(file) for file in folder.splits[split]])


def _splits_of_hub(data: DataRef) -> dict[str, SourceRef]:
    """The held-out splits of a hub id, where the data asks for all of it and names none itself."""
    if data.train.split is not None or any(role in data.sources() for role in HELD_OUT):
        return {}
    names = {KEYWORDS[name]: name for name in reversed(splits_of(data.train)) if name in KEYWORDS}
    if "eval" in names and (role := role_of_eval(names)) is not None:
        names[role] = names["eval"]
    return {role: dataclasses.replace(data.train, split=names[role]) for role in HELD_OUT if role in names}


def _with_held_out(data: DataRef, found: Mapping[str, SourceRef]) -> tuple[DataRef, list[str]]:
    """The data with what was found for validation and test, where it names none itself and the rows are of use."""
    notes = []
    for role, source in found.items():
        if role in data.sources():
            continue
        if column := _empty_target(data, role, source):
            said = f"the {role} rows of {source.source} have nothing in {column}, so they are left out"
            notes.append(f"data: {said}; {role} is cut from train")
            continue
        data = data.with_sources({role: source})
        if source.is_hub:
            notes.append(f"data: {role} is the split {source.split} of {source.source}")
    return data, notes


def _empty_target(data: DataRef, role: str, source: SourceRef) -> str | None:
    """The column that rows are judged by, where the first ones have nothing in it: the test set of a contest, say."""
    try:
        rows = read_rows(dataclasses.replace(source, split=f"{source.split or role}[:{_PEEKED}]"), role, [])
    except DataProblem:  # whoever reads all of it says so
        return None
    columns = [data.columns[target] for target in _TARGETS if target in data.columns]
    return next((name for name in columns if rows and all(row.values.get(name) in (None, "") for row in rows)), None)
