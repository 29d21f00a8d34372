"""One dimension of a search space: a real interval, whole numbers, or a few values; each knows its own values.

Pure: no YAML and no Optuna here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeGuard

from trainers.protocol.settings import Field, Setting


@dataclass(frozen=True)
class Float:
    """A real interval, both ends included; `log` samples its logarithm uniformly."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def contains(self, value: Setting) -> bool:
        """Whether a value is one of this dimension."""
        if not is_number(value) or not self.low <= value <= self.high:
            return False
        return self.step is None or math.isclose(float(self.nearest(value) or 0), value, rel_tol=1e-9)

    def at(self, u: float) -> Setting:
        """The value at share `u` (0 to 1) of the dimension."""
        if self.step is not None:
            return self._at(min(int(u * (self._steps() + 1)), self._steps()))
        if self.log:
            return min(max(math.exp(_between(math.log(self.low), math.log(self.high), u)), self.low), self.high)
        return min(_between(self.low, self.high, u), self.high)

    def nearest(self, value: Setting) -> Setting:
        """The dimension's own value nearest to any value."""
        clipped = min(max(float(value), self.low), self.high) if isinstance(value, (int, float)) else self.low
        if self.step is None:
            return clipped
        return self._at(min(round((clipped - self.low) / self.step), self._steps()))

    def grid(self) -> list[Setting] | None:
        """Every value in order, or None for a continuum."""
        return None if self.step is None else [self._at(i) for i in range(self._steps() + 1)]

    def size(self) -> float:
        """How many values there are, without making a list of them."""
        return math.inf if self.step is None else self._steps() + 1

    def describe(self) -> str:
        """Its values in words, as in `lora_r is a whole number from 4 to 64`."""
        steps = "" if self.step is None else f" in steps of {self.step:g}"
        return f"a number from {self.low:g} to {self.last:g}{steps}"

    @property
    def last(self) -> float:
        """The largest value: `high`, or the last step below it."""
        return self.high if self.step is None else float(_decimal(self.low) + self._steps() * _decimal(self.step))

    def _steps(self) -> int:
        # In decimals, as files have them and Optuna counts them: with floats 0.3 + 2 * 0.3 does not reach 0.9.
        return int((_decimal(self.high) - _decimal(self.low)) // _decimal(self.step or math.inf))

    def _at(self, index: int) -> float:
        # The last sum may come out a rounding error above the bound.
        return min(self.low + index * (self.step or 0.0), self.last)


@dataclass(frozen=True)
class Int:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def contains(self, value: Setting) -> bool:
        """Whether a value is one of this dimension."""
        if not is_number(value) or not isinstance(value, int):
            return False
        return self.low <= value <= self.high and (value - self.low) % self.step == 0

    def at(self, u: float) -> Setting:
        """The value at share `u` (0 to 1) of the dimension."""
        if self.log:
            # Half a step beyond both ends, so that the ends are as likely as their neighbours.
            return self.nearest(math.exp(_between(math.log(self.low - 0.5), math.log(self.high + 0.5), u)))
        steps = (self.last - self.low) // self.step
        return self.low + min(int(u * (steps + 1)), steps) * self.step

    def nearest(self, value: Setting) -> Setting:
        """The dimension's own value nearest to any value."""
        clipped = min(max(round(float(value)), self.low), self.last) if isinstance(value, (int, float)) else self.low
        return self.low + round((clipped - self.low) / self.step) * self.step

    def grid(self) -> list[Setting] | None:
        """Every value in order."""
        return list(range(self.low, self.high + 1, self.step))

    def size(self) -> float:
        """How many values there are, without making a list of them."""
        return (self.last - self.low) // self.step + 1

    def describe(self) -> str:
        """Its values in words, as in `lora_r is a whole number from 4 to 64`."""
        steps = "" if self.step == 1 else f" in steps of {self.step}"
        return f"a whole number from {self.low} to {self.last}{steps}"

    @property
    def last(self) -> int:
        """The largest value: `high`, or the last step below it."""
        return self.high - (self.high - self.low) % self.step


@dataclass(frozen=True)
class Choice:
    """One of a few values, without order."""

    values: tuple[Setting, ...]

    def contains(self, value: Setting) -> bool:
        """Whether a value is one of this dimension."""
        return not isinstance(value, bool) and value in self.values

    def at(self, u: float) -> Setting:
        """The value at share `u` (0 to 1) of the dimension."""
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def nearest(self, value: Setting) -> Setting:
        """The dimension's own value nearest to any value."""
        numbers = [v for v in self.values if isinstance(v, (int, float))]
        if value in self.values or len(numbers) < len(self.values) or not isinstance(value, (int, float)):
            return next((v for v in self.values if v == value), self.values[0])
        return min(numbers, key=lambda v: abs(v - value))

    def grid(self) -> list[Setting] | None:
        """Every value in order."""
        return list(self.values)

    def size(self) -> float:
        """How many values there are."""
        return len(self.values)

    def is_numeric(self) -> bool:
        """Whether all values are numbers: then they have an order."""
        return all(is_number(value) for value in self.values)

    def describe(self) -> str:
        """Its values in words, as in `lora_r is a whole number from 4 to 64`."""
        return "one of " + ", ".join("null" if v is None else str(v) for v in self.values)


Dimension = Float | Int | Choice


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number; true and false are none, though Python counts with them."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _decimal(value: float) -> Decimal:
    return Decimal(str(value))


def _between(low: float, high: float, u: float) -> float:
    return low + u * (high - low)


def share_of(dimension: Dimension, value: Setting) -> float:
    """Where a number lies in its dimension, from 0 at the lower end to 1; among numbers to choose from, by its rank."""
    if isinstance(dimension, Choice):
        ordered = sorted(other for other in dimension.values if is_number(other))
        return ordered.index(value) / max(1, len(ordered) - 1) if is_number(value) else 0.0
    if not is_number(value) or dimension.low == dimension.last:
        return 0.0
    scale = math.log if dimension.log else float
    return (scale(value) - scale(dimension.low)) / (scale(dimension.last) - scale(dimension.low))


def edge(dimension: Dimension, value: Setting) -> str | None:
    """`lower` or `upper` where a value lies at that end of its dimension (within 3 % of its width), else None."""
    if isinstance(dimension, Choice) or not is_number(value) or dimension.low == dimension.last:
        return None
    share = share_of(dimension, value)
    return "lower" if share <= 0.03 else "upper" if share >= 0.97 else None


def wider(dimension: Float | Int, end: str, field: Field | None = None) -> float | None:
    """A bound further out: a factor 4 on a logarithmic dimension, half its width on a linear one.

    None where `field`, the setting itself, goes no further.
    """
    sign, bound = (-1, dimension.low) if end == "lower" else (1, dimension.high)
    moved = bound * 4.0**sign if dimension.log else bound + sign * (dimension.high - dimension.low) / 2
    if field is not None:
        moved = min(max(moved, _or(field.low, -math.inf)), _or(field.high, math.inf))
    if isinstance(dimension, Int):
        moved = math.floor(moved) if end == "lower" else math.ceil(moved)
    elif sign * (rounded := float(f"{moved:.2g}")) > sign * bound:
        moved = rounded
    is_allowed = sign * moved > sign * bound and (field is None or not field.refuse(moved))
    return moved if is_allowed else None


def _or(bound: float | None, default: float) -> float:
    return default if bound is None else bound
