"""Drops duplicates and splits the rows into train, validation and test, stratified and seeded."""

from __future__ import annotations

import itertools
import random
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from trainers.data.sources import Row

E = TypeVar("E")
SPLITS = ("train", "validation", "test")
_NO_LETTERS = dict.fromkeys(code for code in range(128) if not chr(code).isalnum())


@dataclass(frozen=True)
class Keyed(Generic[E]):
    """An example with its key and its stratum.

    Examples with the same `key` are duplicates; None is never one. Each split gets the same share of a `stratum`.
    """

    example: E
    key: Hashable
    stratum: Hashable


@dataclass(frozen=True)
class Placed(Keyed[E]):
    """An example with its row."""

    row: Row


K = TypeVar("K", bound=Keyed[Any])


@dataclass(frozen=True)
class Repeat(Generic[K]):
    """A row that is dropped, and the row with the same key that is kept, in the same split or a held-out one."""

    split: str
    row: K
    kept_split: str
    kept: K


def drop_duplicates(
    splits: Mapping[str, Sequence[K]], names: Sequence[str] = SPLITS
) -> tuple[dict[str, list[K]], list[Repeat[K]]]:
    """Keep the first row of each key, in test before validation before train, so that no training row is held out too.

    `names` are the splits, the one that goes first last. Returns the rows that are kept, by split, and the repeats that
    are dropped.
    """
    first: dict[Hashable, tuple[str, K]] = {}
    kept: dict[str, list[K]] = {}
    dropped: list[Repeat[K]] = []
    for name in reversed(names):
        kept[name] = []
        for row in splits.get(name, ()):
            if row.key is not None and row.key in first:
                dropped.append(Repeat(name, row, *first[row.key]))
            else:
                first[row.key] = (name, row)
                kept[name].append(row)
    return kept, dropped


def drop_alike(
    splits: Mapping[str, Sequence[K]], read: Callable[[str], str]
) -> tuple[dict[str, list[K]], list[Repeat[K]]]:
    """As `drop_duplicates`, where texts are equal as `read` gives them; rows have the keys that were compared."""
    # Tokenizers read slowly: only texts with the letters and digits of another row are read.
    letters = {name: [_letters(_joined(row.key)) for row in rows] for name, rows in splits.items()}
    counts = Counter(itertools.chain.from_iterable(letters.values()))

    def as_read(row: K, its_letters: str) -> K:
        return replace(row, key=_as_read(row.key, read)) if counts[its_letters] > 1 else row

    return drop_duplicates({name: list(map(as_read, rows, letters[name])) for name, rows in splits.items()})


def _as_read(key: Hashable, read: Callable[[str], str]) -> Hashable:
    if isinstance(key, tuple):
        return tuple(_as_read(part, read) for part in key)
    return read(key) if isinstance(key, str) else key


def _joined(key: Hashable) -> str:
    if isinstance(key, tuple):
        return "".join(map(_joined, key))
    return key if isinstance(key, str) else ""


def _letters(text: str) -> str:
    """Letters and digits without case and accents: equal for texts that a tokenizer may read alike."""
    if text.isascii():  # five times as fast
        return text.lower().translate(_NO_LETTERS)
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", text).casefold()))


def repeats_within(rows: Sequence[K]) -> list[tuple[K, K]]:
    """The rows with the key of an earlier row, each with the first row of that key."""
    first = _first_of_each_key(rows)
    return [(row, first[row.key]) for row in rows if row.key is not None and first[row.key] is not row]


def shared_with(rows: Sequence[K], others: Sequence[K]) -> list[tuple[K, K]]:
    """The first rows in `rows` and in `others` of each key that both have."""
    first = _first_of_each_key(others)
    return [(row, first[key]) for key, row in _first_of_each_key(rows).items() if key in first]


def _first_of_each_key(rows: Sequence[K]) -> dict[Hashable, K]:
    first: dict[Hashable, K] = {}
    for row in rows:
        if row.key is not None:
            first.setdefault(row.key, row)
    return first


def cut(rows: Sequence[K], size: float, seed: int) -> tuple[list[K], list[K]]:
    """Split off `size` rows (a share below 1, else a count), the same share of each stratum: (rest, split off).

    The rows left over by rounding go to the largest remainders (Hamilton's method), so counts are exact.
    """
    wanted = min(len(rows), round(size * len(rows)) if size < 1 else int(size))
    by_stratum: dict[Hashable, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        by_stratum[row.stratum].append(index)
    share = wanted / len(rows) if rows else 0.0
    # Keep one row of each stratum: a label that only held-out rows have could not be learned.
    most = {
        stratum: max(0, len(members) - 1) if wanted < len(rows) else len(members)
        for stratum, members in by_stratum.items()
    }
    quotas = {stratum: min(most[stratum], int(len(members) * share)) for stratum, members in by_stratum.items()}
    by_remainder = sorted(by_stratum, key=lambda s: (-(len(by_stratum[s]) * share - quotas[s]), str(s)))
    left = min(wanted, sum(most.values())) - sum(quotas.values())
    while left > 0:  # each round takes a row of every stratum that has one left
        open_ones = [stratum for stratum in by_remainder if quotas[stratum] < most[stratum]]
        # Several rounds at once, until the smallest stratum is used up: rare labels would take many rounds.
        rounds = max(1, min(left // len(open_ones), min(most[s] - quotas[s] for s in open_ones)))
        for stratum in open_ones[:left]:
            quotas[stratum] += rounds
        left -= rounds * min(left, len(open_ones))
    generator = random.Random(seed)  # noqa: S311  # a repeatable split, not a secret
    taken: set[int] = set()
    for stratum in sorted(by_stratum, key=str):
        taken.update(generator.sample(by_stratum[stratum], quotas[stratum]))
    return [r for i, r in enumerate(rows) if i not in taken], [r for i, r in enumerate(rows) if i in taken]
