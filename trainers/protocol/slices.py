"""Slices of a split as `datasets` writes them: `train`, `train[:4096]`, `train[-100:]`, `train[10%:20%]`.

Standard library only: the config checks them before any data is read.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
EXAMPLES = "expected e.g. train, train[:4096], train[-100:] or train[10%:20%]"
_BOUND = r"(-?\d+(?:_\d+)*)(%?)"
_SLICE = re.compile(rf"(\w+(?:\.\w+)*)(?:\[(?:{_BOUND})?:(?:{_BOUND})?\])?", re.ASCII)


@dataclass(frozen=True)
class Slice:
    """Rows `start` to before `stop` of a split; counted in percent of its rows, or in rows."""

    name: str
    start: int = 0
    stop: int | None = None
    is_percent: bool = False

    def take(self, rows: Iterable[T]) -> Iterator[T]:
        """The rows that the slice names. Stops reading where they end, unless all rows must be counted first."""
        if not self.is_percent and self.start >= 0 and (self.stop is None or self.stop >= 0):
            return itertools.islice(rows, self.start, self.stop)
        known = list(rows)
        start, stop = self.bounds(len(known))
        return iter(known[start:stop])

    def bounds(self, rows: int) -> tuple[int, int]:
        """First row and the one after the last, of `rows`. Percents go to the nearest row, a half to the even one."""

        def row(bound: int) -> int:
            at = round(bound * rows / 100) if self.is_percent else bound
            return min(max(at + rows, 0) if at < 0 else at, rows)

        return row(self.start), rows if self.stop is None else row(self.stop)


def parse_slice(text: str) -> Slice:
    """`NAME` or `NAME[FROM:TO]`. Raises `ValueError` with what would be right."""
    match = _SLICE.fullmatch(text)
    if match is None:
        raise ValueError(EXAMPLES)
    name, start, start_unit, stop, stop_unit = match.groups()
    bounds = [int(bound) for bound in (start, stop) if bound]
    is_percent = "%" in (start_unit, stop_unit)
    if is_percent and len({unit for unit in (start_unit, stop_unit) if unit is not None}) > 1:
        raise ValueError("expected both ends in percent, or both in rows")
    if is_percent and any(abs(bound) > 100 for bound in bounds):
        raise ValueError("expected percents from -100% to 100%")
    return Slice(name, int(start or 0), int(stop) if stop else None, is_percent)
