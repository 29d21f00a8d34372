"""A metric that a night measured, with its interval. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard


@dataclass(frozen=True)
class Estimate:
    """A value, and where it lies in 95 of 100 draws of rows; without an interval, both ends are the value."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.value:.4f}"
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


def estimate_of(found: Any) -> Estimate | None:
    """An estimate out of plain values; None where there is none."""
    if not isinstance(found, Mapping) or not _is_number(value := found.get("value", found.get("mean"))):
        return None
    low, high = found.get("low"), found.get("high")
    return Estimate(value, low if _is_number(low) else value, high if _is_number(high) else value)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
