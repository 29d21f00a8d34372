"""Labels by name: their order, and their rows in a checkpoint's head. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainers.data.formats.base import names as first_names
from trainers.protocol.counted import counted

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_NO_NAME = re.compile(r"LABEL_\d+")
"""transformers' default names for the rows of a head."""


def in_order(labels: Iterable[str]) -> list[str]:
    """The distinct labels, sorted by value where all of them are numbers, else as text."""
    different = set(labels)
    if all(_NUMBER.fullmatch(label) for label in different):
        return sorted(different, key=lambda label: (float(label), label))
    return sorted(different)


@dataclass(frozen=True)
class HeadRows:
    """The rows of a checkpoint's head for the data's labels, in the labels' order."""

    rows: tuple[int, ...]
    count: int
    """The number of all rows of the head."""
    folded: tuple[tuple[str, str], ...] = ()
    """(label of the data, name in the head) for names that differ in case."""

    def notes(self) -> list[str]:
        """Notes on how the head is used."""
        left_out = self.count - len(self.rows)
        others = counted(left_out, "other label is", "other labels are")
        more = f"; its {others} left out" if left_out else ""
        notes = [f"the model has a head for these labels: training starts from it{more}"]
        if self.folded:
            pairs = first_names([f"{theirs} is {ours}" for ours, theirs in self.folded])
            notes.append(f"labels of the model's head were matched without regard to case: {pairs}")
        return notes


def rows_of_head(config: Any, labels: Sequence[str]) -> HeadRows | None:
    """The rows for the data's labels in a head with this transformers config; None where a label is missing.

    Rows without names (`LABEL_0`, ...) match labels that are their numbers.
    """
    names = head_names(config)
    if all(_NO_NAME.fullmatch(name) for name in names) and all(label.isdecimal() for label in labels):
        numbers = tuple(int(label) for label in labels)
        return HeadRows(numbers, len(names)) if all(number < len(names) for number in numbers) else None
    exact, folded = _by_name(names), _by_name([name.casefold() for name in names])
    found = [exact.get(label, folded.get(label.casefold())) for label in labels]
    rows = tuple(row for row in found if row is not None)
    if len(rows) < len(labels) or len(set(rows)) < len(rows):
        return None
    pairs = zip(labels, (names[row] for row in rows), strict=True)
    return HeadRows(rows, len(names), tuple((ours, theirs) for ours, theirs in pairs if ours != theirs))


def head_names(config: Any) -> list[str]:
    """The names of a head's rows from the config's `id2label`, or from `label2id` where only that has names."""
    by_row = _in_rows(config.id2label or {})
    if any(not _NO_NAME.fullmatch(name) for name in by_row):
        return by_row
    return _in_rows({row: name for name, row in (config.label2id or {}).items()}) or by_row


def _in_rows(names: Mapping[Any, Any]) -> list[str]:
    """Names by row number as a list; empty where the numbers are not 0, 1, 2, ..."""
    by_row = {int(row): str(name).strip() for row, name in names.items()}
    return [by_row[row] for row in range(len(by_row))] if set(by_row) == set(range(len(by_row))) else []


def _by_name(names: Sequence[str]) -> dict[str, int]:
    """The row of each name that occurs once."""
    count = Counter(names)
    return {name: row for row, name in enumerate(names) if count[name] == 1}
