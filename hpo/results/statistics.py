"""How sure one may be of a metric: intervals by resampling, over rows and over seeds. Pure.

Two things vary: which rows the validation set happens to hold, and the seed of a training. Rows are drawn anew in each
resample; those that belong together, as the turns of one conversation, are drawn together. Seeds are two or three, and
a bootstrap of so few is far too narrow: simulated, its 95 % intervals hold 69 % (two seeds) to 81 % (three) of the time
where seeds are what varies. So the mean over seeds is drawn from Student's t distribution around the one seen (Student,
The Probable Error of a Mean, 1908).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpo.results.outcome import LEVEL, Interval
from trainers.metrics.table import Rows

RESAMPLES = 2000

Draws = npt.NDArray[np.float64]
"""A metric in each resample, shape [RESAMPLES]."""
Units = npt.NDArray[np.intp]
"""A number for each row, [rows]. Rows with the same one belong together: they say less than as many separate rows."""


@dataclass(frozen=True)
class Spread:
    """How trainings vary that differ in their seed alone."""

    deviation: float
    """Standard deviation of the metric; 0 where nothing is known of it."""
    freedom: int
    """Degrees of freedom that it was estimated with."""


def spread(contestants: Sequence[Sequence[Rows]], metric_of: Callable[[Rows], float]) -> Spread:
    """Pooled over the seeds of all contestants: those of one alone are too few to tell much."""
    return spread_of([[metric_of(rows) for rows in repeats] for repeats in contestants])


def spread_of(metrics: Sequence[Sequence[float]]) -> Spread:
    """The same, of the metric of each contestant's trainings (at least one of each)."""
    freedom = sum(len(values) - 1 for values in metrics)
    if freedom == 0:
        return Spread(0.0, 0)
    squares = sum(float(np.square(np.array(values) - np.mean(values)).sum()) for values in metrics)
    return Spread(math.sqrt(squares / freedom), freedom)


def resample(
    repeats: Sequence[Rows], metric_of: Callable[[Rows], float], contestant: int = 0, seed: int = 0,
    between_seeds: Spread | None = None, units: Units | None = None,
) -> Draws:  # fmt: skip
    """The mean metric over seeds in each resample. `repeats`: per-row results of each seed, in one order of rows.

    Equal `seed` draws equal rows; `contestant` tells the draws of one contestant's training seeds from another's, and
    `between_seeds` is that of these repeats alone unless it is given. Without `units` each row is drawn by itself.
    """
    rows_rng = np.random.default_rng([seed, 0])
    seeds_rng = np.random.default_rng([seed, 1, contestant])
    members = None if units is None else [np.flatnonzero(units == unit) for unit in np.unique(units)]
    count = len(repeats[0]) if members is None else len(members)
    between = between_seeds or spread([repeats], metric_of)
    draws = np.zeros(RESAMPLES)
    if between.freedom:
        draws += between.deviation / math.sqrt(len(repeats)) * seeds_rng.standard_t(between.freedom, RESAMPLES)
    for i in range(RESAMPLES):
        drawn = rows_rng.integers(0, count, count)
        if members is not None:
            drawn = np.concatenate([members[unit] for unit in drawn])
        draws[i] += np.mean([metric_of(rows[drawn]) for rows in repeats])
    return draws


def interval(
    repeats: Sequence[Rows], metric_of: Callable[[Rows], float], draws: Draws,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:  # fmt: skip
    """The mean over `repeats` and where 95 of 100 of its `draws` lie, within the `bounds` of the metric.

    Two or three seeds that differ much say little of their mean: without the bounds its interval would exceed them.
    """
    low, high = np.clip(np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]), *bounds)
    return Interval(float(np.mean([metric_of(rows) for rows in repeats])), float(low), float(high))
