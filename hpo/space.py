"""Search dimensions: from YAML to frozen types that know their own values.

Pure: no Optuna here. A dimension is checked against the catalog's field, so a space cannot hold a value that a
trial would refuse.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpo.errors import did_you_mean
from hpo.yaml_source import Section
from trainers.catalog import FIELDS, Field, Setting


@dataclass(frozen=True)
class Float:
    """A real interval, both ends included; `log` samples its logarithm uniformly."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def contains(self, value: Setting) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def nearest(self, value: Setting) -> Setting:
        clipped = min(max(float(value), self.low), self.high) if isinstance(value, (int, float)) else self.low
        if self.step is None:
            return clipped
        return self._at(min(round((clipped - self.low) / self.step), self._steps()))

    def grid(self) -> list[Setting] | None:
        """Every value in order, or None for a continuum."""
        return None if self.step is None else [self._at(i) for i in range(self._steps() + 1)]

    @property
    def last(self) -> float:
        """The largest value: `high`, or the last step below it."""
        return self.high if self.step is None else self._at(self._steps())

    def _steps(self) -> int:
        return math.floor((self.high - self.low) / (self.step or math.inf) + 1e-9)

    def _at(self, index: int) -> float:
        # The last sum may come out a rounding error above the bound.
        return min(self.low + index * (self.step or 0.0), self.high)


@dataclass(frozen=True)
class Int:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def contains(self, value: Setting) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high and (value - self.low) % self.step == 0

    def nearest(self, value: Setting) -> Setting:
        clipped = min(max(round(float(value)), self.low), self.last) if isinstance(value, (int, float)) else self.low
        return self.low + round((clipped - self.low) / self.step) * self.step

    def grid(self) -> list[Setting] | None:
        return list(range(self.low, self.high + 1, self.step))

    @property
    def last(self) -> int:
        """The largest value: `high`, or the last step below it."""
        return self.high - (self.high - self.low) % self.step


@dataclass(frozen=True)
class Choice:
    """One of a few values, without order."""

    values: tuple[Setting, ...]

    def contains(self, value: Setting) -> bool:
        return value in self.values

    def nearest(self, value: Setting) -> Setting:
        numbers = [v for v in self.values if isinstance(v, (int, float))]
        if value in self.values or len(numbers) < len(self.values) or not isinstance(value, (int, float)):
            return next((v for v in self.values if v == value), self.values[0])
        return min(numbers, key=lambda v: abs(v - value))

    def grid(self) -> list[Setting] | None:
        return list(self.values)


Dimension = Float | Int | Choice


@dataclass(frozen=True)
class SearchSpace:
    """The named dimensions of a sweep; empty for a single fine-tune."""

    dimensions: Mapping[str, Dimension]

    def baseline(self, defaults: Mapping[str, Setting]) -> dict[str, Setting]:
        """The default point, each value moved to the nearest one its dimension allows."""
        return {name: dimension.nearest(defaults[name]) for name, dimension in self.dimensions.items()}

    def grid(self) -> list[dict[str, Setting]]:
        """Every point, in the order of the YAML, the last dimension fastest.

        Raises `ValueError` naming the dimensions that are a continuum.
        """
        axes = {name: dimension.grid() for name, dimension in self.dimensions.items()}
        if continuous := [name for name, axis in axes.items() if axis is None]:
            raise ValueError(", ".join(continuous))
        points = itertools.product(*(axis or [] for axis in axes.values()))
        return [dict(zip(axes, point, strict=True)) for point in points]


def parse_space(section: Section, fields: Mapping[str, Field]) -> SearchSpace:
    """Read `search_space:`. `fields` are those the method reads; problems go to the section."""
    dimensions: dict[str, Dimension] = {}
    for name in section.names():
        field = fields.get(name)
        if field is None or not field.searchable:
            _refuse_name(section, name, fields)
        elif not isinstance(value := section.raw(name), dict):
            section.problem(f"got {value!r}", "expected a mapping", name)
        elif dimension := _parse_dimension(section.section(name), field):
            dimensions[name] = dimension
    return SearchSpace(dimensions)


def _refuse_name(section: Section, name: str, fields: Mapping[str, Field]) -> None:
    section.raw(name)
    searchable = [f.name for f in fields.values() if f.searchable]
    if name in fields:
        section.problem("cannot be searched", f"set it under training; searchable: {', '.join(searchable)}", name)
    elif name in FIELDS:
        section.problem("is not a setting of this method", f"searchable: {', '.join(searchable)}", name)
    else:
        section.problem("unknown parameter", did_you_mean(name, searchable), name)


def _parse_dimension(section: Section, field: Field) -> Dimension | None:
    before = len(section.problems)
    kind = section.one_of("type", ("float", "int", "choice"), "")
    if "type" not in section:
        section.problem("has no type", "expected type: float, int or choice")
    dimension: Dimension | None = None
    if kind == "choice":
        dimension = _parse_choice(section, field)
    elif kind in ("float", "int"):
        dimension = _parse_interval(section, field, kind)
    if kind:
        section.finish()
    return dimension if len(section.problems) == before else None


def _parse_choice(section: Section, field: Field) -> Choice | None:
    values = section.raw("values")
    if not isinstance(values, list) or not values:
        section.problem(f"got {values!r}", "expected a list of values, e.g. [8, 16, 32]", "values")
        return None
    if any(value in values[:i] for i, value in enumerate(values)):
        section.problem(f"got {values!r}", "expected each value once", "values")
    for value in values:
        if why := field.refuse(value):
            section.problem(f"got {value!r}", why, "values")
    return Choice(tuple(values))


def _parse_interval(section: Section, field: Field, kind: str) -> Float | Int | None:
    low, high = (_parse_bound(section, field, kind, end) for end in ("low", "high"))
    log = section.flag("log", False)
    step = section.raw("step")
    if kind == "int" and field.type is float:
        section.problem("got type int", f"{field.name} is {field.describe()}: expected type: float", "type")
    if field.type is str or (kind == "float" and field.type is int):
        right = "choice" if field.type is str else "int"
        section.problem(f"got type {kind}", f"{field.name} is {field.describe()}: expected type: {right}", "type")
    if low is None or high is None:
        return None
    if low > high:
        section.problem(f"low {low:g} is above high {high:g}", "expected low <= high", "low")
    if log and low <= 0:
        section.problem(f"got low {low:g} with log: true", "expected low above 0", "low")
    if log and step is not None:
        section.problem("got step with log: true", "expected one of the two", "step")
    if step is not None and not _is_step(step, kind):
        section.problem(f"got {step!r}", f"expected a {'whole ' if kind == 'int' else ''}number above 0", "step")
        return None
    if kind == "int":
        return Int(int(low), int(high), log, int(step or 1))
    return Float(float(low), float(high), log, None if step is None else float(step))


def _is_step(step: Any, kind: str) -> bool:
    if isinstance(step, bool) or not isinstance(step, (int, float)) or not math.isfinite(step):
        return False
    return step > 0 and (kind == "float" or step == int(step))


def _parse_bound(section: Section, field: Field, kind: str, end: str) -> float | None:
    value: Any = section.raw(end)
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (kind == "int" and not whole):
        wanted = "a whole number" if kind == "int" else "a number"
        section.problem("is missing" if value is None else f"got {value!r}", f"expected {wanted}", end)
        return None
    if not math.isfinite(value):
        section.problem(f"got {value!r}", "expected a finite number", end)
        return None
    if field.type is not str and (why := field.refuse(int(value) if field.type is int and whole else value)):
        section.problem(f"got {value!r}", why, end)
    return value
