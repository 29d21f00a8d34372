"""What measuring a release found besides its numbers: how many answers are torch's, and which options are faster."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Agreement:
    """How many answers are torch's: labels of rows, or the likeliest tokens or tags of the first rows' tokens."""

    equal: int
    count: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.equal / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Between which shares it may be on many more answers (Wilson, 95 %): a few say little."""
        n, share, z = self.count, self.share, 1.96
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return middle - half, middle + half


@dataclass(frozen=True)
class Tuned:
    """Session options that are now in the card of a release; none where the defaults are as fast."""

    options: dict[str, Any]
    gain: float
    """The share of the time that they save."""
