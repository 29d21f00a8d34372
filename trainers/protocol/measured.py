"""What measuring a release found: its numbers, the verdict of its gate, and which options are faster."""

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
class Measurement:
    """One variant as measured in onnxruntime."""

    variant: str
    metrics: dict[str, float]
    max_logit_diff: float
    size_mb: float
    latency_p50_ms: float
    latency_p95_ms: float
    tokens_per_second: float | None = None
    rows: int | None = None
    """The rows that `metrics` are of; None where they are all."""
    agreement: Agreement | None = None
    """With torch's answers; None where answers are numbers, or torch's are not known."""


@dataclass(frozen=True)
class Judged:
    """One variant's measurement, as far as it had to go, and the verdict."""

    measurement: Measurement
    drop: float
    """How much worse its metric is on all rows, as a share of torch's; estimated where not all were measured."""
    passed: bool
    low: float | None = None
    high: float | None = None
    """Bounds of the drop on all rows; where all were measured, of the drop on more rows like these (95 %)."""
    slower_than: str | None = None
    """A variant that passed before and is surely faster, so that this one was measured no further."""


@dataclass(frozen=True)
class AllJudged:
    """All variants of a `MeasureAll` request."""

    judged: list[Judged]
    failures: dict[str, str]
    """Variant -> why it could not be measured."""
    count: int
    """Validation rows, all of them."""
    seconds: float


@dataclass(frozen=True)
class Tuned:
    """Session options that are now in the card of a release; none where the defaults are as fast."""

    options: dict[str, Any]
    gain: float
    """The share of the time that they save."""
