"""What is no mistake in the data but should be known, each with the first few places; nothing is mended silently."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainers.data.formats.base import MAX_NAMES, cut, names
from trainers.data.sources import places
from trainers.data.splits import SPLITS, Placed
from trainers.tasks.base import Task

NEAR_EMPTY = 10
"""A label with fewer training rows is hard to learn and hard to measure."""
Pair = tuple[Placed[Any], Placed[Any]]


@dataclass(frozen=True)
class Seen:
    """What was seen in one split."""

    rows: list[Placed[Any]]
    """Those that a trial will see."""
    duplicates: list[Pair]
    """Rows as given whose input came before, and where."""
    shared: dict[str, list[Pair]]
    """Other split -> rows that it has too, and where."""
    too_long: list[tuple[Placed[Any], int]]
    """Rows that are cut, with the tokens they lose."""


def notes_on(
    seen: Mapping[str, Seen], train_labels: Mapping[str, int], marked: Sequence[str], task: Task, max_length: int
) -> list[str]:
    """One line for each kind of thing. `train_labels` counts rows (or words); `marked` are files."""
    notes = [f"{file} begins with a byte order mark; it is read all the same" for file in marked]
    for name in seen:
        notes += _repeats(name, seen[name], task) + _cuts(name, seen[name], max_length)
    counts = {label: count for label, count in train_labels.items() if label != "O"}
    return notes + _near_empty(counts, seen["train"].rows, task) + _one_sided(counts) + _alike(counts)


def _repeats(name: str, seen: Seen, task: Task) -> list[str]:
    notes = []
    if seen.duplicates:
        found = f"{name}: {len(seen.duplicates)} duplicate rows; a sweep drops them"
        notes.append(f"{found}: {_pairs(seen.duplicates)}")
    if others := contradictions(task, seen.duplicates):
        found = f"{name}: {len(others)} rows have the text of another row and another answer; a sweep keeps the first"
        notes.append(f"{found}: {_pairs(others)}")
    for other, pairs in seen.shared.items():
        if SPLITS.index(name) < SPLITS.index(other):
            found = f"{len(pairs)} rows are in {name} and in {other}; a sweep keeps them in {other} only"
            notes.append(f"{found}: {_pairs(pairs)}")
    return notes


def contradictions(task: Task, pairs: Sequence[Pair]) -> list[Pair]:
    """Rows of the same input, and another answer."""
    return [(row, other) for row, other in pairs if task.answer(row.example) != task.answer(other.example)]


def _pairs(pairs: Sequence[Pair]) -> str:
    return places([f"{row.row.where} (as {other.row.where})" for row, other in pairs])


def _cuts(name: str, seen: Seen, max_length: int) -> list[str]:
    if not seen.too_long:
        return []
    tokens = sum(count for _, count in seen.too_long)
    found = f"{name}: {len(seen.too_long)} rows are longer than max_length {max_length}: {tokens} tokens are cut"
    return [f"{found}: {places([f'{row.row.where} ({count})' for row, count in seen.too_long])}"]


def _near_empty(counts: Mapping[str, int], rows: Sequence[Placed[Any]], task: Task) -> list[str]:
    at: dict[str, list[str]] = {label: [] for label, count in counts.items() if count < NEAR_EMPTY}
    for row in rows if at else ():
        for label in at.keys() & set(task.labels([row.example])):
            at[label].append(row.row.where)
    named = [f"{cut(label)} ({counts[label]}) at {places(at[label])}" for label in itertools.islice(at, MAX_NAMES)]
    more = f" and {len(at) - MAX_NAMES:,} more" if len(at) > MAX_NAMES else ""
    return [f"labels with fewer than {NEAR_EMPTY} training rows: {'; '.join(named)}{more}"] if named else []


def _one_sided(counts: Mapping[str, int]) -> list[str]:
    if not counts or max(counts.values()) <= 0.9 * sum(counts.values()):
        return []
    most = max(counts, key=lambda label: counts[label])
    return [f"{most} is {counts[most] / sum(counts.values()):.0%} of the training labels: judge by f1_macro"]


def _alike(counts: Mapping[str, int]) -> list[str]:
    """Labels that a person would take for one."""
    spelled: dict[str, list[str]] = {}
    for label in counts:
        spelled.setdefault(" ".join(label.casefold().split()), []).append(label)
    pairs = [" and ".join(repr(cut(label)) for label in same) for same in spelled.values() if len(same) > 1]
    return [f"labels that differ in upper and lower case or blanks only: {names(pairs)}"] if pairs else []
