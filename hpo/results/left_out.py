"""Points of a space that no trial is made of, because they need more memory than there is. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from trainers.protocol.settings import Setting


@dataclass(frozen=True)
class NotTried:
    """A point, and why no trial is made of it."""

    params: dict[str, Setting]
    needs_mb: float | None
    """At least: one row at a time, with all that spares memory. None where the smallest of its kind ran out of it."""
    of_mb: float

    def why(self) -> str:
        """`needs about 31 GB of 24 GB`."""
        if self.needs_mb is None:
            return f"runs out of {gigabytes(self.of_mb)}"
        return f"needs about {gigabytes(self.needs_mb)} of {gigabytes(self.of_mb)}"


@dataclass(frozen=True)
class LeftOut:
    """What a sweep leaves out of its space."""

    share: float = 0.0
    """Of the space."""
    is_counted: bool = True
    """Whether `points` are all of them; of a space that cannot be listed they are two that were looked at: the one that
    needs least, and the one that needs most."""
    points: list[NotTried] = field(default_factory=list)

    def listed(self, most: int) -> list[NotTried]:
        """Those that need least, where all are known: they are the nearest to what fits."""
        return sorted(self.points, key=lambda point: point.needs_mb or math.inf)[:most] if self.is_counted else []

    def planned(self, trials: int, points: float) -> int:
        """How many of so many trials there will be in a space of so many `points`."""
        return min(trials, max(1, int(points) - len(self.points))) if self.is_counted and self.points else trials

    def line(self) -> str | None:
        """For people; None where nothing is left out."""
        if not self.points:
            return None
        count, of = len(self.points), gigabytes(self.points[0].of_mb)
        what = f"{count} point{'s' * (count != 1)}" if self.is_counted else f"about {self.share:.0%} of the space"
        verb = "" if self.is_counted and count > 1 else "s"
        needs = [point.needs_mb for point in self.points if point.needs_mb is not None]
        if not needs:
            return f"not tried: {what}, which run{verb} out of {of}"
        ends = dict.fromkeys(gigabytes(mb) for mb in (min(needs), max(needs)))
        return f"not tried: {what}, which need{verb} about {' to '.join(ends)} of {of}"


def gigabytes(mb: float) -> str:
    """`31 GB`, `0.4 GB`."""
    gb = mb / 1024
    return f"{gb:.0f} GB" if gb >= 10 else f"{gb:.1f} GB" if gb >= 0.1 else f"{mb:.0f} MB"
