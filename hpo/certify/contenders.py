"""A night's release, its baseline and the champion on the same rows: values, leads, what became worse. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hpo.certify.ledger import Measured, Standing
from hpo.config.objective import Objective
from hpo.release.same_rows import Answered
from hpo.results.gaps import Gap, Scores, gap, scores
from hpo.results.statistics import Units
from trainers.metrics.table import Rows

ALARMS = 30
"""A regression is beyond noise where chance shows one in at most 5 % of so many nights together."""
_WIDER = 1.6
"""What that makes of a 95 % interval: the normal distribution's quantiles at 1 - 0.05 / 60 and at 0.975."""


@dataclass(frozen=True)
class Contenders:
    """Released artifacts that have answered the certifying rows."""

    gate: Objective
    metric_of: Callable[[Sequence[str]], Callable[[Rows], float]]
    """Label names -> the metric of rows that number labels so."""
    new: Answered
    baseline: Answered | None = None
    old: Answered | None = None
    """The champion."""
    units: Units | None = None
    """Of the certifying rows."""

    def measured(self, one: Answered) -> Measured:
        """The metric of one of them, with its interval."""
        return measured(one.rows, self.metric_of(one.labels), self.units)

    def lead(self, one: Answered, other: Answered) -> Gap:
        """By how much the first is ahead of the second; positive where it is better."""
        return gap([self._scores(one)], [self._scores(other)], None)

    def regressions(self, before: Standing | None) -> list[str]:
        """What is worse beyond noise, in sentences; `before` is what the champion measured when it was released."""
        if self.old is None:
            return []
        said, name = [], self.gate.metric
        new, old = self.measured(self.new), self.measured(self.old)
        if self._is_behind(self.new, self.old):
            said.append(f"tonight's version is worse than the champion: {name} {new.value:.4f} against {old.value:.4f}")
        if before is not None and self._has_fallen(before.measured, old):
            said.append(
                f"the champion is worse than in the night that released it, {before.night}: {name} {old.value:.4f} "
                f"against {before.measured.value:.4f}; the rows have changed"
            )
        if self.baseline and self._is_behind(self.new, self.baseline) and self._is_behind(self.old, self.baseline):
            value = self.measured(self.baseline).value
            said.append(
                f"tonight's version and the champion are both worse than tonight's baseline: {name} {new.value:.4f} "
                f"and {old.value:.4f} against {value:.4f}"
            )
        return said

    def _is_behind(self, one: Answered, other: Answered) -> bool:
        return self.lead(one, other).comparison(ALARMS).high < 0

    def _has_fallen(self, before: Measured, now: Measured) -> bool:
        """Both have rows in common, so the error is smaller than what is taken for it here: no alarm comes of that."""
        error = float(np.hypot(before.high - before.low, now.high - now.low)) / 2
        return self._sign * (before.value - now.value) > _WIDER * error

    @property
    def _sign(self) -> float:
        return 1.0 if self.gate.direction == "maximize" else -1.0

    def _scores(self, one: Answered) -> Scores:
        metric = self.metric_of(one.labels)
        return scores(one.rows, lambda rows: self._sign * metric(rows), self.units)


def measured(rows: Rows, metric: Callable[[Rows], float], units: Units | None = None) -> Measured:
    """A metric of rows, with its interval."""
    found = scores(rows, metric, units)
    low, high = gap([found], [Scores(0.0, np.zeros_like(found.without))], None).interval(1)
    return Measured(found.value, low, high)
