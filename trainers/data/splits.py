"""Cuts the rows into train, validation and test once, before anything else: duplicates first, then by stratum."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from trainers.data.sources import Row

E = TypeVar("E")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Keyed(Generic[E]):
    """An example with what makes it a duplicate of another (`key`; None: it is none) and what must be spread evenly
    (`stratum`)."""

    example: E
    key: Hashable
    stratum: Hashable


@dataclass(frozen=True)
class Placed(Keyed[E]):
    """An example with the row that it was made of."""

    row: Row


K = TypeVar("K", bound=Keyed[Any])


@dataclass(frozen=True)
class Repeat(Generic[K]):
    """A row that is dropped, and the one of the same key that stays, in the same split or in one held out from it."""

    split: str
    row: K
    kept_split: str
    kept: K


def drop_duplicates(splits: Mapping[str, Sequence[K]]) -> tuple[dict[str, list[K]], list[Repeat[K]]]:
    """Keep the first of each key; test goes before validation before train, so no training row is held out too."""
    first: dict[Hashable, tuple[str, K]] = {}
    kept: dict[str, list[K]] = {}
    dropped: list[Repeat[K]] = []
    for name in reversed(SPLITS):
        kept[name] = []
        for row in splits.get(name, ()):
            if row.key is not None and row.key in first:
                dropped.append(Repeat(name, row, *first[row.key]))
            else:
                first[row.key] = (name, row)
                kept[name].append(row)
    return kept, dropped


def repeats_within(rows: Sequence[K]) -> list[tuple[K, K]]:
    """Rows whose key came before, each with the first row of that key."""
    first = _first_of_each_key(rows)
    return [(row, first[row.key]) for row in rows if row.key is not None and first[row.key] is not row]


def shared_with(rows: Sequence[K], others: Sequence[K]) -> list[tuple[K, K]]:
    """For each key that both have: the first row of each."""
    first = _first_of_each_key(others)
    return [(row, first[key]) for key, row in _first_of_each_key(rows).items() if key in first]


def _first_of_each_key(rows: Sequence[K]) -> dict[Hashable, K]:
    first: dict[Hashable, K] = {}
    for row in rows:
        if row.key is not None:
            first.setdefault(row.key, row)
    return first


def cut(rows: Sequence[K], size: float, seed: int) -> tuple[list[K], list[K]]:
    """Split off `size` rows (a share below 1, else a count), the same share of each stratum: (rest, cut off).

    Largest remainders get the rows that shares leave over (Hamilton's method), so counts are exact.
    """
    wanted = min(len(rows), round(size * len(rows)) if size < 1 else int(size))
    by_stratum: dict[Hashable, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        by_stratum[row.stratum].append(index)
    share = wanted / len(rows) if rows else 0.0
    # One row of each stratum stays: a label that only the held-out rows have could not be learned.
    most = {
        stratum: max(0, len(members) - 1) if wanted < len(rows) else len(members)
        for stratum, members in by_stratum.items()
    }
    quotas = {stratum: min(most[stratum], int(len(members) * share)) for stratum, members in by_stratum.items()}
    by_remainder = sorted(by_stratum, key=lambda s: (-(len(by_stratum[s]) * share - quotas[s]), str(s)))
    left = min(wanted, sum(most.values())) - sum(quotas.values())
    while left > 0:  # each round gives a row to every stratum that has one left, or what is left to the first of them
        open_ones = [stratum for stratum in by_remainder if quotas[stratum] < most[stratum]]
        # As many rounds at once as the smallest of them lasts: rare labels beside a frequent one are many rounds.
        rounds = max(1, min(left // len(open_ones), min(most[s] - quotas[s] for s in open_ones)))
        for stratum in open_ones[:left]:
            quotas[stratum] += rounds
        left -= rounds * min(left, len(open_ones))
    generator = random.Random(seed)  # noqa: S311  # a repeatable cut, not a secret
    taken: set[int] = set()
    for stratum in sorted(by_stratum, key=str):
        taken.update(generator.sample(by_stratum[stratum], quotas[stratum]))
    return [r for i, r in enumerate(rows) if i not in taken], [r for i, r in enumerate(rows) if i in taken]
