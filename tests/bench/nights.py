"""Simulated years of nights: how often a version is promoted that is not better, and how soon one that is better.

A night retrains the model: it is right on other rows than the champion, about as often. Whether a row is right is one
draw, likelier on an easy row; how alike rows are in that for two trainings follows from how often they disagree. As
many rows choose as certify, and no row does both. They are the same ones in every night (or the first of them, where
data grows), so nights depend on each other. What is claimed, its e-value and its level come from `hpo.certify`, as a
night has them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hpo.certify.evidence import e_value, is_ahead
from hpo.certify.ledger import level, target
from tests.bench.tables import Row

NIGHTS, YEARS = 365, 200
BUDGET = 0.05
ACCURACY = 0.85
WORSE_AT, GAIN_AT = 60, 150
"""The nights from which on trainings are worse, for a week, and better, for good."""
WEEK = 7

Bools = npt.NDArray[np.bool_]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """What a year is like."""

    disagreement: float = 0.06
    """The share of rows on which one of two equally good trainings is right, and the other is not."""
    rows: int = 1000
    """That certify; as many choose."""
    rows_at_first: int | None = None
    """Fewer, where data grows: evenly, over the year."""
    gain: float = 0.03
    worse: float = 0.05
    between_trainings: float = 0.0
    """Standard deviation of their true accuracy."""
    trainings: int = 4
    """Of a night, all equally good: the best one on the rows that choose is released."""
    chosen_on_all: bool = False
    """Whether it is the best one on the certifying rows too."""

    def rows_in(self, night: int) -> int:
        first = self.rows_at_first or self.rows
        return first + (self.rows - first) * night // (NIGHTS - 1)


@dataclass
class Year:
    """What came of one."""

    claims: int = 0
    promotions: int = 0
    false: int = 0
    """Promotions of a version that is truly no better."""
    found_after: int | None = None
    """Nights from the gain to the promotion of a version that has it, the first one counted as 1."""
    champion: float = ACCURACY
    """Its true accuracy."""

    def night(self, night: int, setting: Setting, truth: float, choosing: Array, certifying: Array) -> bool:
        """One night, with the differences of its version and the champion; whether it is promoted."""
        if not is_ahead(choosing):
            return False
        self.claims += 1
        found = e_value(certifying, choosing, target(BUDGET, self.claims))
        if found < 1 / level(BUDGET, self.claims, self.promotions):
            return False
        self.promotions += 1
        self.false += truth <= self.champion
        if night >= GAIN_AT and self.found_after is None and truth >= self.champion + setting.gain / 2:
            self.found_after = night - GAIN_AT + 1
        self.champion = truth
        return True


def simulated(setting: Setting, years: int, seed: int = 0) -> list[Year]:
    """So many years, side by side."""
    rng = np.random.default_rng([seed, int(setting.disagreement * 1000), setting.rows])
    alike = likeness(setting.disagreement)
    hardness = rng.standard_normal((years, 2 * setting.rows), dtype=np.float32)
    found, champion = [Year() for _ in range(years)], _right(rng, hardness, alike, np.full(years, ACCURACY))
    for night in range(NIGHTS):
        truth = ACCURACY + setting.between_trainings * rng.standard_normal(years)
        truth += setting.gain * (night >= GAIN_AT) - setting.worse * (WORSE_AT <= night < WORSE_AT + WEEK)
        new = _released(rng, setting, hardness, alike, truth, setting.rows_in(night))
        differences, count = new.astype(float) - champion, setting.rows_in(night)
        for number, year in enumerate(found):
            one = differences[number]
            choosing, certifying = one[:count], one[setting.rows : setting.rows + count]
            if year.night(night, setting, float(truth[number]), choosing, certifying):
                champion[number] = new[number]
    return found


def _released(
    rng: np.random.Generator, setting: Setting, hardness: npt.NDArray[np.float32], alike: float, truth: Array,
    count: int,
) -> Bools:  # fmt: skip
    """On which rows the version is right that a night releases, [years, rows]; `count` rows choose tonight."""
    new = _right(rng, hardness, alike, truth)
    seen = slice(None) if setting.chosen_on_all else slice(count)
    for _ in range(setting.trainings - 1):
        other = _right(rng, hardness, alike, truth)
        is_better = other[:, seen].sum(axis=1) > new[:, seen].sum(axis=1)
        new = np.where(is_better[:, None], other, new)
    return new


def _right(rng: np.random.Generator, hardness: npt.NDArray[np.float32], alike: float, truth: Array) -> Bools:
    """On which rows a training with a true accuracy is right, [years, rows]."""
    own = rng.standard_normal(hardness.shape, dtype=np.float32)
    edges = np.array([_quantile(one) for one in truth], dtype=np.float32)
    right: Bools = edges[:, None] + math.sqrt(alike) * hardness + math.sqrt(1 - alike) * own > 0
    return right


def _quantile(share: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(share))


def likeness(disagreement: float) -> float:
    """The correlation of two trainings' tendency to be right on a row, with which they disagree so often."""
    from scipy.special import ndtr

    points = np.linspace(-8, 8, 2001)
    density = np.exp(-(points**2) / 2)
    density /= density.sum()
    low, high = 0.0, 0.99999
    for _ in range(50):
        middle = (low + high) / 2
        right = ndtr((_quantile(ACCURACY) + math.sqrt(middle) * points) / math.sqrt(1 - middle))
        if 2 * float((density * right * (1 - right)).sum()) > disagreement:
            low = middle
        else:
            high = middle
    return low


@dataclass(frozen=True)
class Summed:
    """Years of one kind, summed up."""

    years: int
    false_share: float
    """The mean over years of the share of false ones among a year's promotions (0 where there is none)."""
    any_false: float
    """The share of years with a false one."""
    within: dict[int, float] = field(default_factory=dict)
    """Nights -> the share of years in which the gain is found within them."""
    claims: float = 0.0
    """A year, on the mean."""
    promotions: float = 0.0


def summed(years: Sequence[Year]) -> Summed:
    """The mean year."""
    shares = [year.false / max(year.promotions, 1) for year in years]
    after = np.array([math.inf if year.found_after is None else year.found_after for year in years])
    return Summed(
        len(years), float(np.mean(shares)), float(np.mean([year.false > 0 for year in years])),
        {nights: float(np.mean(after <= nights)) for nights in (1, 5, 10, 30)},
        float(np.mean([year.claims for year in years])), float(np.mean([year.promotions for year in years])),
    )  # fmt: skip


SETTINGS = {
    **{f"disagreement {share:.0%}": Setting(share) for share in (0.04, 0.06, 0.08, 0.1, 0.15)},
    "6%, rows grow from 400 to 1,000": Setting(rows_at_first=400),
    "6%, trainings vary by 0.005": Setting(between_trainings=0.005),
    "10%, 2,000 rows": Setting(0.1, 2000),
    "6%, no gain, none worse": Setting(gain=0.0, worse=0.0),
    "6%, that, chosen on the certifying rows too": Setting(chosen_on_all=True, gain=0.0, worse=0.0),
}


def rows(years: int = YEARS) -> list[Row]:
    found: list[Row] = []
    for name, setting in SETTINGS.items():
        year = summed(simulated(setting, years))
        within = ", ".join(f"{share:.3f}" for share in year.within.values())
        found += [
            Row(name, ""),
            Row("  share of false promotions; years with one", f"{year.false_share:.4f}; {year.any_false:.3f}", "0.05"),
            Row("  claims; promotions, a year", f"{year.claims:.0f}; {year.promotions:.2f}"),
        ]
        if setting.gain:
            found.append(Row("  gain of 0.03 found within 1, 5, 10, 30 nights", within))
    return found
