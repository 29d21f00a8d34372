"""A search space: its named dimensions and their conditions.

Pure: no Optuna here, and no YAML. A dimension with a condition (`when:`) exists only where another one has one of given
values.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hpo.config.dimensions import Choice, Dimension, Float, Int
from trainers.protocol.settings import Setting

Condition = Mapping[str, tuple[Setting, ...]]
"""Name of another dimension -> the values for which this one exists."""
Point = dict[str, Setting]


@dataclass(frozen=True)
class SearchSpace:
    """The named dimensions of a sweep, a condition's own dimension first; empty for a single fine-tune."""

    dimensions: Mapping[str, Dimension]
    conditions: Mapping[str, Condition] = dataclasses.field(default_factory=dict)

    def is_active(self, name: str, point: Mapping[str, Setting]) -> bool:
        """Whether a dimension exists at a point whose earlier dimensions are known."""
        condition = self.conditions.get(name, {})
        return all(other in point and point[other] in values for other, values in condition.items())

    def point(self, choose: Callable[[str, Dimension], Setting]) -> Point:
        """A point made by choosing a value for each dimension that exists there."""
        point: Point = {}
        for name, dimension in self.dimensions.items():
            if self.is_active(name, point):
                point[name] = choose(name, dimension)
        return point

    def contains(self, point: Mapping[str, Setting]) -> bool:
        """Whether a point has a value of this space for just the dimensions that exist there."""
        active = {name for name in self.dimensions if self.is_active(name, point)}
        return active == set(point) and all(self.dimensions[name].contains(value) for name, value in point.items())

    def baseline(self, defaults: Mapping[str, Setting]) -> Point:
        """The default point, each value moved to the nearest one its dimension allows."""
        return self.point(lambda name, dimension: dimension.nearest(defaults[name]))

    def grid(self) -> list[Point]:
        """Every point, in the order of the YAML, the last dimension fastest.

        Raises `ValueError` naming the dimensions that are a continuum.
        """
        axes = {name: dimension.grid() for name, dimension in self.dimensions.items()}
        if continuous := [name for name, axis in axes.items() if axis is None]:
            raise ValueError(", ".join(continuous))
        points: list[Point] = [{}]
        for name, axis in axes.items():
            points = [
                extended
                for point in points
                for extended in ([{**point, name: v} for v in axis or []] if self.is_active(name, point) else [point])
            ]
        return points

    def most_points(self) -> float:
        """An upper bound on the number of points (conditions only lower it); infinite for a continuum."""
        return math.prod(dimension.size() for dimension in self.dimensions.values())

    def resolved(self) -> dict[str, Any]:
        """The space as plain values."""
        return {
            name: {
                "type": type(d).__name__.lower(), **vars(d),
                **({"when": {k: list(v) for k, v in self.conditions[name].items()}} if name in self.conditions else {}),
            }
            for name, d in self.dimensions.items()
        }  # fmt: skip


def from_resolved(resolved: Mapping[str, Any]) -> SearchSpace:
    """The inverse of `SearchSpace.resolved`."""
    kinds: dict[str, Any] = {"float": Float, "int": Int, "choice": Choice}
    dimensions: dict[str, Dimension] = {}
    conditions: dict[str, Condition] = {}
    for name, fields in resolved.items():
        given = dict(fields)
        if when := given.pop("when", None):
            conditions[name] = {other: tuple(values) for other, values in when.items()}
        cls = kinds[given.pop("type")]
        dimensions[name] = Choice(tuple(given["values"])) if cls is Choice else cls(**given)
    return SearchSpace(dimensions, conditions)
