"""Threshold: a trial whose value leaves known bounds stops."""

from __future__ import annotations

from dataclasses import dataclass

from hpo.pruning.base import ComparingRule, Curve, Peers


@dataclass(frozen=True)
class Threshold(ComparingRule):
    """Stops a trial when its value is outside of [lower, upper]; None means no bound. Peers do not matter.

    The bounds are what you know beforehand, such as the loss of guessing.
    """

    lower: float | None = None
    upper: float | None = None

    def _loses(self, peers: Peers, number: int, curve: Curve) -> bool:
        value = curve[-1][1]
        return (self.lower is not None and value < self.lower) or (self.upper is not None and value > self.upper)
