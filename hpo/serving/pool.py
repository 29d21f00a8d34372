"""Inputs that wait for a judging model: the next batch has rows of like length, and every request gets its turn."""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

Owner = TypeVar("Owner")


class Row(NamedTuple, Generic[Owner]):
    """One input that waits. Rows are ordered by length, and no two are equal."""

    tokens: int
    number: int
    """Counts all rows of a pool."""
    owner: Owner
    place: int
    """Which of the owner's inputs it is."""


class Pool(Generic[Owner]):
    """Rows of several owners. Not safe for threads."""

    def __init__(self) -> None:
        self._sorted: list[Row[Owner]] = []
        self._turns: deque[Owner] = deque()
        self._of: dict[Owner, dict[int, Row[Owner]]] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, owner: Owner, lengths: Sequence[int]) -> None:
        """Add an owner's rows by their lengths in tokens; an owner is added once."""
        rows = {i: Row(tokens, next(self._numbers), owner, i) for i, tokens in enumerate(lengths)}
        self._of[owner] = rows
        self._turns.append(owner)
        for row in rows.values():
            bisect.insort(self._sorted, row, key=_place)

    def discard(self, owner: Owner) -> None:
        """Remove the rows of an owner that were not taken."""
        for row in self._of.pop(owner, {}).values():
            del self._sorted[self._at(row)]

    def take(self, most_tokens: int, takers: int = 1) -> list[Row[Owner]]:
        """Take the next batch of at most `most_tokens` padded tokens, or of one row; empty where no row waits.

        It holds the first row of the owner whose turn it is, and rows of any owner that are nearest in length: so near
        that they cost less than they would in a call of their own. Where several `takers` are free, it is no more than
        one share of what waits.
        """
        while self._turns and not self._of.get(self._turns[0]):
            self._of.pop(self._turns.popleft(), None)
        if not self._turns:
            return []
        first = next(iter(self._of[self._turns[0]].values()))
        low, high = self._window(self._at(first), most_tokens, -(-len(self) // takers))
        batch = self._sorted[low:high]
        del self._sorted[low:high]
        for row in batch:
            del self._of[row.owner][row.place]
        self._turns.rotate(-1)
        return batch

    def _window(self, at: int, most_tokens: int, most_rows: int) -> tuple[int, int]:
        """The part of the sorted rows around a place that makes a batch."""
        rows, low, high = self._sorted, at, at + 1
        while high - low < most_rows:
            count, shortest, longest = high - low, rows[low].tokens, rows[high - 1].tokens
            below = rows[low - 1].tokens if low else 0
            above = rows[high].tokens if high < len(rows) else 0
            takes_below = below >= max(1, longest - _padding(longest)) and (count + 1) * longest <= most_tokens
            takes_above = 0 < above <= shortest + _padding(above) and (count + 1) * above <= most_tokens
            if takes_above and not (takes_below and longest - below < (above - longest) * count):
                high += 1
            elif takes_below:
                low -= 1
            else:
                break
        return low, high

    def _at(self, row: Row[Owner]) -> int:
        return bisect.bisect_left(self._sorted, _place(row), key=_place)


def _padding(longest: int) -> int:
    """The most tokens that a row is padded with: a call of its own costs some three (MiniLM, 2 cores)."""
    return max(4, longest // 8)


def _place(row: Row[Owner]) -> tuple[int, int]:
    return row.tokens, row.number
