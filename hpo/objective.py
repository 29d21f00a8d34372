"""What is being optimized, and the one place that knows which of two values is better."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainers.catalog import Direction


@dataclass(frozen=True)
class Objective:
    """A metric and its direction."""

    metric: str
    direction: Direction

    def better(self, a: float, b: float) -> bool:
        """Whether `a` is strictly better than `b`; NaN is worse than anything."""
        if math.isnan(a) or math.isnan(b):
            return math.isnan(b) and not math.isnan(a)
        return a > b if self.direction == "maximize" else a < b

    def sort_key(self, value: float) -> float:
        """Ascending order of this key is best first."""
        if math.isnan(value):
            return math.inf
        return -value if self.direction == "maximize" else value

    def relative_drop(self, value: float, reference: float) -> float:
        """How much worse `value` is than `reference`, as a share of `reference`; negative when better."""
        worse_by = reference - value if self.direction == "maximize" else value - reference
        return worse_by / abs(reference) if reference else (0.0 if worse_by <= 0 else math.inf)
