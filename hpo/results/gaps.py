"""How far one contestant is ahead of another on the same rows and seeds, and what that may be wrong by. Pure.

The error has two parts. Rows: a delete-a-group jackknife of the paired difference (Tukey 1958; Shao & Tu, The Jackknife
and Bootstrap, 1995), which any metric of rows can have for a few dozen evaluations of it. Seeds: the variance pooled
over all contestants. Both together are judged by Student's t with the degrees of freedom of Welch and Satterthwaite
(Satterthwaite 1946). What more seeds would show is predicted from those seen (stochastic curtailment: Lan, Simon &
Halperin 1982; with a flat prior on the true difference: Spiegelhalter, Freedman & Blackburn 1986).

Student's t trusts the spread that it sees: of three rows with nearly the same difference it says that chance hardly
ever shows that. So no p-value is below the smallest one of an exact test. Where two contestants are equal, a difference
between them is as often positive as negative, so k differences all have the same sign with a chance of 2 ** (1 - k)
(the randomization test: Fisher, The Design of Experiments, 1935; for signs: Dixon & Mood, The statistical sign test,
1946). With 5 rows that is 0.06: they show nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpo.results.outcome import LEVEL, Comparison
from hpo.results.statistics import Spread, Units
from trainers.metrics.table import Rows

GROUPS = 40
"""Of rows, each left out once. More make the error's own error smaller (40: a tenth), and cost as many metrics."""
FEWEST_ROWS = 6
"""With fewer no difference is beyond noise, whatever they are."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Scores:
    """A metric of one training's rows, and what it is without each group of them in turn."""

    value: float
    without: npt.NDArray[np.float64]
    """Shape [groups]; none where there is a single row."""
    sizes: npt.NDArray[np.int64] | None = None
    """Rows in each group, [groups]; None where nobody has counted them."""


def scores(rows: Rows, metric_of: Callable[[Rows], float], units: Units | None = None) -> Scores:
    """Groups are made of positions, so they are the same ones for every contestant. Rows of one unit are in one group;
    without `units` each row is one."""
    unit: Units = np.arange(len(rows)) if units is None else np.unique(units, return_inverse=True)[1]
    independent = int(unit.max(initial=-1)) + 1
    count = min(GROUPS, independent) if independent > 1 else 0
    group = unit % max(count, 1)
    without = np.array([metric_of(rows[group != left_out]) for left_out in range(count)])
    return Scores(metric_of(rows), without, np.bincount(group, minlength=count)[:count])


@dataclass(frozen=True)
class Gap:
    """The mean difference of two contestants (first minus second) over the seeds that both have."""

    difference: float
    row_variance: float
    """Of the difference, where other rows had been drawn; infinite where nothing is known of it."""
    row_freedom: int
    seeds: int
    """Seeds that both have."""
    between: Spread | None
    """How seeds vary; None where the two are adapters as they are, and not recipes."""
    differing: int = GROUPS
    """Groups of rows on which the two differ."""

    def p_value(self) -> float:
        """Two-sided, of one comparison."""
        from scipy.special import stdtr  # late, as everywhere: it takes a moment that most commands need not wait for

        variance = self._variance(self.seeds)
        if not (math.isfinite(variance) and math.isfinite(self.difference)) or self.difference == 0:
            return 1.0
        chance = 0.0
        if variance > 0:
            chance = 2 * stdtr(self._freedom(self.seeds, 0), -abs(self.difference) / math.sqrt(variance))
        return max(float(chance), _smallest_p(self.differing))

    def chance_of_falling_behind(self, cap: int) -> float:
        """How likely the first is not ahead any more once both have `cap` seeds, on these rows."""
        from scipy.special import stdtr

        deviation = self._still_to_move(cap)
        if not math.isfinite(deviation):
            return 0.5
        if deviation == 0:
            return float(self.difference <= 0)
        return float(stdtr(self._seed_freedom(), -self.difference / deviation))

    def chance_of_being_shown(self, cap: int, level: float) -> float:
        """How likely their difference is beyond noise at `level` (two-sided) once both have `cap` seeds."""
        from scipy.special import stdtr, stdtrit

        if _smallest_p(self.row_freedom + 1) >= level:
            return 0.0  # too few rows, however many seeds there are
        deviation, error = self._still_to_move(cap), math.sqrt(self._variance(cap))
        if not (math.isfinite(deviation) and math.isfinite(error)):
            return 1.0 if math.isfinite(self.row_variance) else 0.0  # nothing known of seeds: all is open
        critical = float(stdtrit(self._freedom(cap, 2 * (cap - self.seeds)), 1 - level / 2)) * error
        if deviation == 0:
            return float(abs(self.difference) > critical)
        ends = [(sign * self.difference - critical) / deviation for sign in (1, -1)]
        return float(sum(stdtr(self._seed_freedom(), end) for end in ends))

    def interval(self, comparisons: int) -> tuple[float, float]:
        """Where the difference lies by Student's t, as it holds for so many `comparisons` together (Bonferroni)."""
        from scipy.special import stdtrit

        error = math.sqrt(self._variance(self.seeds))
        if not (math.isfinite(error) and math.isfinite(self.difference)):
            # Nothing is known of the error, and JSON has no infinity: as far as the difference is, to either side.
            return -abs(self.difference), abs(self.difference)
        reach = 0.0
        if error > 0:
            reach = error * float(stdtrit(self._freedom(self.seeds, 0), 1 - (1 - LEVEL) / comparisons / 2))
        return self.difference - reach, self.difference + reach

    def comparison(self, comparisons: int) -> Comparison:
        """Interval and p-value as they hold for all of so many `comparisons` together."""
        (low, high), wide = self.interval(comparisons), abs(self.difference)
        if comparisons * _smallest_p(self.differing) >= 1 - LEVEL:  # too few rows differ to tell the sign
            low, high = min(low, -wide), max(high, wide)
        return Comparison(self.difference, low, high, min(1.0, comparisons * self.p_value()))

    def _seed_variance(self, seeds: int) -> float:
        """Of the difference of two means over `seeds`; infinite where nothing is known of seeds."""
        if self.between is None:
            return 0.0
        return 2 * self.between.deviation**2 / seeds if self.between.freedom else math.inf

    def _variance(self, seeds: int) -> float:
        return self.row_variance + self._seed_variance(seeds)

    def _seed_freedom(self) -> int:
        return self.between.freedom if self.between else 1

    def _freedom(self, seeds: int, further: int) -> float:
        """Degrees of freedom of the whole error, with `further` ones of the seeds to come."""
        if not 0 < (variance := self._variance(seeds)) < math.inf:
            return 1.0
        of_seeds = self._seed_variance(seeds) / variance
        of_rows = 1 - of_seeds
        return 1 / (of_rows**2 / max(self.row_freedom, 1) + of_seeds**2 / (self._seed_freedom() + further))

    def _still_to_move(self, cap: int) -> float:
        """Standard deviation of what the difference will change by until both have `cap` seeds."""
        left = (cap - self.seeds) / cap
        return math.sqrt(self._seed_variance(self.seeds) * left) if left else 0.0


def gap(first: Sequence[Scores], second: Sequence[Scores], between: Spread | None) -> Gap:
    """Compare two contestants by their scores on the same rows, a training of each seed; later seeds of one are left
    out where the other has none."""
    seeds = min(len(first), len(second))
    pairs = list(zip(first[:seeds], second[:seeds], strict=True))
    difference = float(np.mean([a.value - b.value for a, b in pairs]))
    without = np.mean([a.without - b.without for a, b in pairs], axis=0)
    if not len(without):
        return Gap(difference, math.inf, 0, seeds, between)
    variance = float((len(without) - 1) * np.mean(np.square(without - without.mean())))
    if not math.isfinite(variance):
        return Gap(difference, math.inf, len(without) - 1, seeds, between)
    differing = _differing(difference, without, pairs[0][0].sizes)
    return Gap(difference, variance, len(without) - 1, seeds, between, differing)


def _differing(difference: float, without: npt.NDArray[np.float64], sizes: npt.NDArray[np.int64] | None) -> int:
    """How many groups contribute to a difference. Exact for a mean over rows; of another metric nearly every group
    does, for how much a row counts depends on all rows."""
    if sizes is None:
        return len(without)
    sums = difference * sizes.sum() - without * (sizes.sum() - sizes)
    return int((np.abs(sums) > _ROUNDING * np.abs(sums).max()).sum())


def _smallest_p(differences: int) -> float:
    """Of an exact two-sided test of so many differences: that all have one sign."""
    return min(1.0, 2.0 ** (1 - differences))
