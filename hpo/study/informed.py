"""Points from a Gaussian process that knows which settings decide: learning rate and batch size before rank.

Exact, in numpy. It is asked from the second trial on: how far a result reaches is known well enough beforehand that
points at random tell it no more. What it knows: tuned well, LoRA and its kin come out alike, with little left to the
rank (Lee et al. 2026, arXiv 2602.04998); batch size is of the first order (Lee and Lee 2026, arXiv 2602.09492); the
best learning rate stays about where it is as the rank grows, or falls (Chen et al. 2026, arXiv 2602.06204).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpo.config.dimensions import Choice, Dimension, is_number, share_of
from hpo.config.space import Point, SearchSpace
from hpo.study.tried import Tried
from trainers.protocol.settings import Setting

Array = npt.NDArray[np.float64]

DECADES = {"learning_rate": 0.8, "batch_size": 1.2, "lora_r": 2.4}
"""Over how many decades of a setting results stay alike, as is thought before any trial (the median)."""
SPREAD = 0.5
"""Standard deviation of the logarithm of such a length; that of any other setting is the width of its dimension."""
APART = 2.0
"""From one category to another, in such lengths: each method has a best learning rate of its own (arXiv 2602.04998)."""
NOISE, SPREAD_OF_NOISE = 0.05, 0.7
"""Share of the variance that no setting explains: median, and standard deviation of its logarithm."""
MODELS = 24
"""Drawn from what is thought before any trial; each counts as far as it explains what was seen."""
ANYWHERE, NEARBY = 384, 128
"""Candidates all over the space, and around the best point so far."""
STEP = 0.1
"""Standard deviation from the best point to one nearby, in widths of a dimension."""


def propose(
    space: SearchSpace, directions: Sequence[str], tried: Sequence[Tried], seed: int,
    allowed: Callable[[Point], bool] = lambda _: True,
) -> Point:  # fmt: skip
    """The candidate whose expected improvement, times the chance that it keeps the constraints, is largest.

    `tried` holds at least one point. Where none of the candidates is `allowed`, it is not either.
    """
    rng = np.random.default_rng(seed)
    points, goodness = [point for point, _, _ in tried], _goodness(directions, tried, rng)
    keeps = np.array([all(by <= 0 for by in excess.values()) for _, _, excess in tried])
    counted = keeps if keeps.any() else ~keeps
    best = points[int(np.argmax(np.where(counted, goodness, -np.inf)))]
    candidates = _candidates(space, points, best, rng)
    candidates = [point for point in candidates if allowed(point)] or candidates
    seen, asked = places(space, points), places(space, candidates)
    owners = [index for index, dimension in enumerate(space.dimensions.values()) for _ in range(_columns(dimension))]
    evidence, gains = np.empty(MODELS), np.empty((MODELS, len(candidates)))
    for index in range(MODELS):
        lengths = np.exp(rng.normal(0, SPREAD, len(space.dimensions)))[owners]
        noise = NOISE * math.exp(rng.normal(0, SPREAD_OF_NOISE))
        model = Model.of(seen / lengths, asked / lengths, goodness, noise)
        evidence[index], gains[index] = model.log_evidence, model.improvement(model.at_seen[counted].max())
    gain = np.exp(evidence - evidence.max()) @ gains
    for name in tried[0][2]:
        kept = -np.array([excess[name] for _, _, excess in tried])
        gain = gain * Model.of(seen, asked, kept / (kept.std() or 1.0), NOISE).chance_above_zero()
    return candidates[int(np.argmax(gain))]


# --- what is learned from ------------------------------------------------------------------------------


def _goodness(directions: Sequence[str], tried: Sequence[Tried], rng: np.random.Generator) -> Array:
    """One number a point, more is better. Several objectives are weighed anew at each question (Knowles 2006)."""
    signs = [1.0 if direction == "maximize" else -1.0 for direction in directions]
    columns = [_standardized(np.array([s * values[i] for _, values, _ in tried])) for i, s in enumerate(signs)]
    if len(columns) == 1:
        return columns[0]
    shares = rng.dirichlet(np.ones(len(columns)))
    behind = np.stack([share * (column - column.max()) for share, column in zip(shares, columns, strict=True)])
    return _standardized(behind.min(axis=0) + 0.05 * behind.sum(axis=0))


def _standardized(values: Array) -> Array:
    """Mean 0 and deviation 1; a collapse only says that a point is bad, and would hide all other differences."""
    middle, best = np.median(values), values.max()
    clipped = np.maximum(values, middle - 2 * (best - middle)) if best > middle else values
    centred: Array = clipped - clipped.mean()
    return centred / (centred.std() or 1.0)


# --- points as numbers ---------------------------------------------------------------------------------


def places(space: SearchSpace, points: Sequence[Point]) -> Array:
    """Points as coordinates, shape [points, columns]: results stay alike over a distance of about 1."""
    return np.array([
        [number for name, dimension in space.dimensions.items()
         for number in _place(name, dimension, point[name] if name in point else dimension.at(0.5))]
        for point in points
    ], dtype=float).reshape(len(points), -1)  # fmt: skip


def _place(name: str, dimension: Dimension, value: Setting) -> list[float]:
    if name in DECADES and is_number(value):
        return [math.log10(value) / DECADES[name]]
    if isinstance(dimension, Choice) and not dimension.is_numeric():
        return [float(value == other) * APART / math.sqrt(2) for other in dimension.values]
    return [share_of(dimension, value)]


def _columns(dimension: Dimension) -> int:
    return len(dimension.values) if isinstance(dimension, Choice) and not dimension.is_numeric() else 1


def _candidates(space: SearchSpace, tried: Sequence[Point], best: Point, rng: np.random.Generator) -> list[Point]:
    """Points that were not tried; any points where none is left."""

    def nearby(name: str, dimension: Dimension) -> Setting:
        if name not in best or (isinstance(dimension, Choice) and rng.random() < 1 / 3):
            return dimension.at(rng.random())
        if isinstance(dimension, Choice):
            return best[name]
        return dimension.at(float(np.clip(share_of(dimension, best[name]) + rng.normal(0, STEP), 0, 1)))

    anywhere = [space.point(lambda _, dimension: dimension.at(rng.random())) for _ in range(ANYWHERE)]
    found = anywhere + [space.point(nearby) for _ in range(NEARBY)]
    return [point for point in found if point not in tried] or found


# --- the process ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """What one Gaussian process thinks of the candidates."""

    mean: Array
    deviation: Array
    at_seen: Array
    """Its mean at the points that were tried: without the luck of a single result."""
    log_evidence: float

    @classmethod
    def of(cls, seen: Array, asked: Array, values: Array, noise: float) -> Model:
        """`values` at places `seen`, shape [points, columns]; Matern 5/2 about an unknown constant."""
        count = len(seen)
        between = _alike(seen, seen)
        root = np.linalg.cholesky(between + (noise + 1e-8) * np.eye(count))
        ones, whitened = np.linalg.solve(root, np.stack([np.ones(count), values], axis=1)).T
        level = float(ones @ whitened / (ones @ ones + 0.3))
        rest = whitened - level * ones
        variance = float(rest @ rest + 1) / (count + 1)
        reach = np.linalg.solve(root, _alike(seen, asked))
        at_seen = level + np.linalg.solve(root, between).T @ rest
        deviation = np.sqrt(variance * np.maximum(1 - (reach**2).sum(axis=0), 1e-9))
        log_evidence = -0.5 * count * math.log(variance) - float(np.log(np.diag(root)).sum())
        return cls(level + reach.T @ rest, deviation, at_seen, log_evidence)

    def improvement(self, best: float) -> Array:
        """By how much each candidate is expected to exceed `best`, 0 where it does not."""
        ahead = (self.mean - best) / self.deviation
        density = np.exp(-0.5 * ahead**2) / math.sqrt(2 * math.pi)
        expected: Array = self.deviation * (ahead * _normal(ahead) + density)
        return expected

    def chance_above_zero(self) -> Array:
        """Of each candidate."""
        return _normal(self.mean / self.deviation)


def _alike(first: Array, second: Array) -> Array:
    """How much points share, from 1 where they are equal to 0, shape [first, second]."""
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * first @ second.T
    apart = np.sqrt(5 * np.maximum(squares, 0))
    shared: Array = (1 + apart + apart**2 / 3) * np.exp(-apart)
    return shared


def _normal(numbers: Array) -> Array:
    return np.array([0.5 * math.erfc(-number / math.sqrt(2)) for number in numbers])
