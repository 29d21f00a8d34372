"""Notes on data that is valid but unusual, each with the first few places; nothing is corrected silently."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainers.data.formats.base import MAX_NAMES, cut, names
from trainers.data.sources import places
from trainers.data.splits import SPLITS, Placed, drop_alike
from trainers.protocol.counted import counted
from trainers.tasks.base import Task

NEAR_EMPTY = 10
"""A label with fewer training rows than this is hard to learn and hard to measure."""
Pair = tuple[Placed[Any], Placed[Any]]


@dataclass(frozen=True)
class Seen:
    """Facts about one split."""

    rows: list[Placed[Any]]
    """The rows that a trial will use."""
    duplicates: list[Pair]
    """Rows with the input of an earlier row, each with that row."""
    shared: dict[str, list[Pair]]
    """Other split -> rows that are in it too, each with its row there."""
    too_long: list[tuple[Placed[Any], int]]
    """Rows that are cut, with the number of tokens that they lose."""


def notes_on(
    seen: Mapping[str, Seen], train_labels: Mapping[str, int], marked: Sequence[str], task: Task, max_length: int
) -> list[str]:
    """One line for each kind of note.

    `train_labels` counts rows (or words) by label; `marked` are files with a byte order mark.
    """
    notes = [f"{file} begins with a byte order mark; it is skipped" for file in marked]
    for name in seen:
        notes += _repeats(name, seen[name], task) + _cuts(name, seen[name], task, max_length)
    counts = {label: count for label, count in train_labels.items() if label != "O"}
    return notes + _near_empty(counts, seen["train"].rows, task) + _one_sided(counts) + _alike(counts)


def _repeats(name: str, seen: Seen, task: Task) -> list[str]:
    notes = []
    if seen.duplicates:
        found = f"{name}: {counted(len(seen.duplicates), 'duplicate row')}; a sweep drops {_them(seen.duplicates)}"
        notes.append(f"{found}: {_pairs(seen.duplicates)}")
    if others := contradictions(task, seen.duplicates):
        rows = counted(len(others), "row has", "rows have")
        found = f"{name}: {rows} the same text as another row but a different answer; a sweep keeps the first"
        notes.append(f"{found}: {_pairs(others)}")
    for other, pairs in seen.shared.items():
        if SPLITS.index(name) < SPLITS.index(other):
            rows = counted(len(pairs), "row is", "rows are")
            found = f"{rows} in {name} and in {other}; a sweep keeps {_them(pairs)} in {other} only"
            notes.append(f"{found}: {_pairs(pairs)}")
    return notes


def contradictions(task: Task, pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs of rows with the same input whose answers differ."""
    return [(row, other) for row, other in pairs if task.answer(row.example) != task.answer(other.example)]


def same_inputs(task: Task, splits: Mapping[str, Sequence[Placed[Any]]]) -> list[str]:
    """A note for each held-out split on rows with the input of a training row and another answer: both are kept, and
    what was learned from one helps with the other."""
    learned = {task.input_of(row): row for row in reversed(splits["train"])}
    notes = []
    for name in SPLITS[1:]:
        asked = ((row, task.input_of(row)) for row in splits[name])
        if pairs := [(row, learned[input_]) for row, input_ in asked if input_ is not None and input_ in learned]:
            rows = counted(len(pairs), "row has", "rows have")
            found = f"{name}: {rows} the input of a training row, with another answer"
            notes.append(f"{found}: {_pairs(pairs)}")
    return notes


def alike_rows(splits: Mapping[str, Sequence[Placed[Any]]], read: Callable[[str], str]) -> list[str]:
    """A note for each pair of splits on rows of one that the tokenizer reads (`read`) as rows of the other."""
    between: dict[tuple[str, str], list[Pair]] = {}
    for repeat in drop_alike(splits, read)[1]:
        if repeat.split != repeat.kept_split:
            between.setdefault((repeat.split, repeat.kept_split), []).append((repeat.row, repeat.kept))
    return [
        f"{counted(len(pairs), f'row of {name} is', f'rows of {name} are')} in {other} too, but for case, accents or "
        f"spaces that the tokenizer drops; a sweep keeps both, `hpo check --fix` keeps one: {_pairs(pairs)}"
        for (name, other), pairs in between.items()
    ]


def _pairs(pairs: Sequence[Pair]) -> str:
    return places([f"{row.row.where} (as {other.row.where})" for row, other in pairs])


def _them(pairs: Sequence[Pair]) -> str:
    return "it" if len(pairs) == 1 else "them"


def _cuts(name: str, seen: Seen, task: Task, max_length: int) -> list[str]:
    if not seen.too_long:
        return []
    rows = counted(len(seen.too_long), "row is", "rows are")
    tokens = counted(sum(count for _, count in seen.too_long), "token is", "tokens are")
    found = f"{name}: {rows} longer than {task.limit} {max_length}: {tokens} cut"
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
    return [f"{most} is {counts[most] / sum(counts.values()):.0%} of the training labels: compare trials by f1_macro"]


def _alike(counts: Mapping[str, int]) -> list[str]:
    """Labels that look the same to a person."""
    spelled: dict[str, list[str]] = {}
    for label in counts:
        spelled.setdefault(" ".join(label.casefold().split()), []).append(label)
    pairs = [" and ".join(repr(cut(label)) for label in same) for same in spelled.values() if len(same) > 1]
    return [f"labels that differ only in case or spaces: {names(pairs)}"] if pairs else []
