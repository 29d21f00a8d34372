"""Gives each split its own files, or its own split of a hub id, where the data names only one source.

Files of several splits are never mixed: training on test rows would go unnoticed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from trainers.data.formats.base import DataProblem
from trainers.data.hub import splits_of
from trainers.data.sources import read_rows
from trainers.data.split_files import KEYWORDS, WAY_OUT, SplitFiles, role_of_eval, split_files
from trainers.protocol.events import Finding
from trainers.protocol.slices import parse_slice
from trainers.protocol.trial_spec import DataRef, SourceRef

HELD_OUT = ("validation", "test")
_TARGETS = ("label", "labels", "value", "output")
"""Roles of columns that a held-out row must have."""
_PEEKED = 100
"""Rows that are checked for them."""


def named_splits(data: DataRef) -> tuple[DataRef, list[str]]:
    """The data with a source for each split that file names or the hub give, and notes on them.

    Sources that the data names are kept, but each takes only its own files of a folder with several splits. Raises
    `DataProblem` where names do not make clear which split a file belongs to.
    """
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
    data = data.with_sources(given)
    train = folders.get(data.train.source)
    if data.train.is_hub:
        found = _splits_of_hub(data)
    else:
        found = {} if train is None else {split: _only(train, split) for split in HELD_OUT if split in train.splits}
    split, notes = _with_held_out(data, found)
    return split, [*(f"data: {folder}" for folder in folders.values()), *notes]


def _own_files(role: str, source: SourceRef, folder: SplitFiles) -> SourceRef:
    """A split's part of a folder. Raises `DataProblem` where it has none."""
    split = role if source.split is None else parse_slice(source.split).name
    if split not in folder.splits:
        raise DataProblem([Finding(f"data.{role}", f"{folder}, and none is {split}", WAY_OUT)])
    return dataclasses.replace(_only(folder, split), split=source.split)


def _only(folder: SplitFiles, split: str) -> SourceRef:
    return SourceRef(folder.source, files=[str(file) for file in folder.splits[split]])


def _splits_of_hub(data: DataRef) -> dict[str, SourceRef]:
    """The held-out splits of a hub id, where the data names neither a split nor held-out sources."""
    if data.train.split is not None or any(role in data.sources() for role in HELD_OUT):
        return {}
    names = {KEYWORDS[name]: name for name in reversed(splits_of(data.train)) if name in KEYWORDS}
    if "eval" in names and (role := role_of_eval(names)) is not None:
        names[role] = names["eval"]
    return {role: dataclasses.replace(data.train, split=names[role]) for role in HELD_OUT if role in names}


def _with_held_out(data: DataRef, found: Mapping[str, SourceRef]) -> tuple[DataRef, list[str]]:
    """The data with the sources found for validation and test, where it names none and their rows have targets."""
    notes = []
    for role, source in found.items():
        if role in data.sources():
            continue
        if column := _empty_target(data, role, source):
            said = f"the {role} rows of {source.source} have no values in {column}, so they are left out"
            notes.append(f"data: {said}; {role} is cut from train")
            continue
        data = data.with_sources({role: source})
        if source.is_hub:
            notes.append(f"data: {role} is the split {source.split} of {source.source}")
    return data, notes


def _empty_target(data: DataRef, role: str, source: SourceRef) -> str | None:
    """The target column, where the first rows have no value in it, as in the test set of a competition."""
    try:
        rows = read_rows(dataclasses.replace(source, split=f"{source.split or role}[:{_PEEKED}]"), role, [])
    except DataProblem:  # reading the whole source reports it
        return None
    columns = [data.columns[target] for target in _TARGETS if target in data.columns]
    return next((name for name in columns if rows and all(row.values.get(name) in (None, "") for row in rows)), None)
