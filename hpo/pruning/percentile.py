"""Percentile and median stopping: a trial that falls behind a share of its peers stops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hpo.pruning.base import EPSILON, ComparingRule, Curve, Peers, bar_of


@dataclass(frozen=True)
class Percentile(ComparingRule):
    """Keeps the best `percentile` percent of trials; decides at every evaluation from `min_fraction` on.

    A trial stops when its best value so far is worse than that percentile of its peers' best values up to the same
    share of the budget, by more than `tolerance`, a share of its own value. The percentile is interpolated linearly.
    With 50 it is the median stopping rule (Golovin et al. 2017, "Google Vizier", section 3.2.2).

    Peers are all other trials that have reached that share, also running ones; with fewer than `min_peers` no trial
    stops. Peers that were stopped before that share do not count, so the bar rises with the survivors, and the first
    trials to reach it are not stopped there.
    """

    percentile: float = 25.0
    min_fraction: float = 0.2
    min_peers: int = 3
    tolerance: float = 0.02

    def _loses(self, peers: Peers, number: int, curve: Curve) -> bool:
        share = curve[-1][0]
        key = peers.order.sort_key
        arrived = [c for n, c in peers.curves.items() if n != number and c and c[-1][0] >= share - EPSILON]
        values = ([key(value) for at, value in c if at <= share + EPSILON] for c in arrived)
        best = sorted(min(known) for known in values if known)
        if share < self.min_fraction - EPSILON or len(best) < max(1, self.min_peers):
            return False
        own = min((value for _, value in curve), key=key)
        return _quantile(best, self.percentile / 100) < bar_of(peers.order, own, self.tolerance)


@dataclass(frozen=True)
class Median(ComparingRule):
    """The median stopping rule (Golovin et al. 2017, "Google Vizier", section 3.2.2): `Percentile` at 50.

    Vizier takes the median over finished trials; here running peers that have reached the same share count too.
    """

    min_fraction: float = 0.2
    min_peers: int = 3
    tolerance: float = 0.02

    def _loses(self, peers: Peers, number: int, curve: Curve) -> bool:
        return Percentile(50.0, self.min_fraction, self.min_peers, self.tolerance).should_prune(peers, number)


def _quantile(ascending: Sequence[float], share: float) -> float:
    """The quantile of sorted numbers, interpolated linearly as in `numpy.percentile`; the last ones may be inf."""
    position = share * (len(ascending) - 1)
    low, high = ascending[math.floor(position)], ascending[math.ceil(position)]
    return low if low == high else low + (high - low) * (position % 1)
