"""How much of what makes a trial good follows from which dimension, and how sure that is. Pure.

PED-ANOVA (Watanabe, Bansal, Hutter 2023, arXiv 2304.10255), the numbers of Optuna's evaluator: how far the values of a
dimension among the best trials are spread otherwise than among all. Computed on counts over a grid, because the
bootstraps ask for it hundreds of times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hpo.config.dimensions import Choice, Dimension, Int
from hpo.config.objective import Objective
from hpo.config.space import SearchSpace
from hpo.results.records import TrialRecord
from trainers.protocol.settings import Setting

FEWEST_TRIALS = 10
"""Complete trials below which an importance is mostly chance."""
BOOTSTRAPS = 100
_BEST = 0.1
"""The share of trials that count as good, but at least `_FEWEST_BEST` of them, and at most half of all."""
_FEWEST_BEST = 5
_GRID = 50
_NARROWEST = 0.5 / 1.64
"""Of a kernel, in grid steps: 90 % of it lie in its own step."""

Counts = npt.NDArray[np.int64]
Density = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """One dimension's share of what tells good trials from all, and the middle 90 % of it over bootstraps."""

    dimension: str
    share: float
    low: float
    high: float


def importances(records: Sequence[TrialRecord], space: SearchSpace, objective: Objective) -> list[Importance]:
    """The dimensions that every complete trial has, the most important first.

    Empty below `FEWEST_TRIALS` complete trials, and where nothing differs. The bootstraps draw trials again.
    """
    found = [(r.result.value, r.params) for r in records if r.state == "complete" and r.result and not r.is_duplicate]
    trials = [(v, params) for v, params in found if v is not None and math.isfinite(v)]
    losses = np.array(objective.sort_keys(value for value, _ in trials))
    if len(trials) < FEWEST_TRIALS or len(set(losses)) == 1:
        return []
    places = {}
    for name, dimension in space.dimensions.items():
        values = [params[name] for _, params in trials if name in params]  # null is a value too
        if len(values) == len(trials) and len(set(values)) > 1:
            places[name] = _places(dimension, values)
    if not places:
        return []
    rng = np.random.default_rng(0)  # one study, one answer
    drawn = [_shares(places, losses, rng.integers(0, len(losses), len(losses))) for _ in range(BOOTSTRAPS)]
    shares = _shares(places, losses, np.arange(len(losses)))
    low, high = (_quantile(np.sort(drawn, axis=0), level) for level in (0.05, 0.95))
    rows = zip(places, shares, low, high, strict=True)
    return sorted((Importance(n, float(s), float(a), float(b)) for n, s, a, b in rows), key=lambda i: -i.share)


def _quantile(ordered: Density, level: float) -> Density:
    """numpy's own of each column; its function imports masked arrays first, which takes longer."""
    below = int(level * (len(ordered) - 1))
    share = level * (len(ordered) - 1) - below
    low, high = ordered[below], ordered[below + 1]
    found: Density = low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)
    return found


@dataclass(frozen=True)
class _Places:
    """Where each trial's value lies on the grid of its dimension."""

    of_trial: Counts
    size: int
    are_ordered: bool


def _places(dimension: Dimension, values: Sequence[Setting | None]) -> _Places:
    if isinstance(dimension, Choice):
        known = list(dimension.values)
        return _Places(np.array([known.index(value) for value in values]), len(known), are_ordered=False)
    low, high, given = dimension.low, dimension.high, np.array(values, float)
    size = _GRID
    if isinstance(dimension, Int) and dimension.log:
        size = min(math.ceil(math.log2(high - low + 1)) + 1, _GRID)
    elif dimension.step is not None:
        size = min(round((high - low) / dimension.step) + 1, _GRID)
    if dimension.log:
        low, high, given = math.log(low), math.log(high), np.log(given)
    found = np.ceil((given - low) / (high - low) * (size - 1) - 0.5).astype(int)
    return _Places(np.clip(found, 0, size - 1), size, are_ordered=True)


def _shares(places: dict[str, _Places], losses: Density, chosen: Counts) -> Density:
    """Each dimension's share among the chosen trials; equal ones where nothing tells them apart.

    Whatever ties with the last of the good trials is good too.
    """
    count = len(chosen)
    good = max(math.ceil(_BEST * count), min(_FEWEST_BEST, count // 2))
    values = losses[chosen]
    best = chosen[values <= np.partition(values, good - 1)[good - 1]]
    found = np.array([_divergence(p, p.of_trial[best], p.of_trial[chosen]) for p in places.values()])
    total = found.sum()
    return found / total if total > 0 else np.full(len(found), 1 / len(found))


def _divergence(places: _Places, best: Counts, chosen: Counts) -> float:
    """Pearson's divergence of the best trials' density from that of all, over the grid."""
    density = _kernel_density if places.are_ordered else _smoothed_shares
    top = density(np.bincount(best, minlength=places.size)) + 1e-12
    every = density(np.bincount(chosen, minlength=places.size)) + 1e-12
    return float(every @ (top / every - 1) ** 2)


def _kernel_density(counts: Counts) -> Density:
    """A Parzen estimator over grid steps: Scott's bandwidth, kernels cut at the ends, one wide kernel as the prior."""
    at = np.flatnonzero(counts)
    weights, total, size = counts[at], counts.sum(), len(counts)
    cumulated = np.cumsum(weights)
    mean = at @ weights / total
    deviation = math.sqrt((at - mean) ** 2 @ weights / max(1, total - 1))
    first = np.searchsorted(cumulated, total // 4, side="left")
    third = min(len(at) - 1, int(np.searchsorted(cumulated, total * 3 // 4, side="right")))
    width = max(1.059 * min((at[third] - at[first]) / 1.34, deviation) * total**-0.2, _NARROWEST)
    steps = np.arange(size + 1)
    of_distance = _below(np.arange(0.5 - size, size), width)  # from the centre of one step to the edge of another
    edges = np.empty((len(at) + 1, size + 1))
    edges[:-1], edges[-1] = of_distance[steps - at[:, None] + size - 1], _prior_edges(size)
    kernels = (edges[:, 1:] - edges[:, :-1]) / (edges[:, -1:] - edges[:, :1])
    density: Density = np.append(weights, 1) / (total + 1) @ kernels
    return density


@cache
def _prior_edges(size: int) -> Density:
    return _below(np.arange(size + 1) - size / 2, size)


def _below(distances: npt.NDArray[np.floating[Any]], deviation: float) -> Density:
    """The share of a normal distribution that lies below each distance from its mean. Few distances are asked for, and
    importing SciPy for them would take longer than all the rest."""
    scale = deviation * math.sqrt(2)
    return np.array([math.erfc(-distance / scale) / 2 for distance in distances.tolist()])


def _smoothed_shares(counts: Counts) -> Density:
    """Of values without an order: a kernel for each that was seen, and one even kernel as the prior."""
    at = np.flatnonzero(counts)
    kernels = np.full((len(at) + 1, len(counts)), 1 / (len(at) + 1))
    kernels[np.arange(len(at)), at] += 1
    kernels /= kernels.sum(axis=1, keepdims=True)
    shares: Density = np.append(counts[at], 1) / (counts.sum() + 1) @ kernels
    return shares
