"""What measuring a release found besides its numbers: how many answers are torch's, and which options are faster."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Tuned:
    """Session options that are now in the card of a release; none where the defaults are as fast."""

    options: dict[str, Any]
    gain: float
    """The share of the time that they save."""
