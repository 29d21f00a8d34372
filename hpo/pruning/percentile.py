"""Percentile and median stopping: a trial that falls behind a share of its peers stops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hpo.pruning.base import EPSILON, Curve, NoisyRule, Peers, best_look


@dataclass(frozen=True)
class Percentile(NoisyRule):
    """Keeps the best `percentile` percent of trials; decides at every evaluation from `min_fraction` on.

    A trial stops when its best value so far is worse than that percentile of its peers' best values up to the same
    share of the budget, by more than noise: `standard_errors` of its difference to the peer at that percentile on the
    same rows, or, where rows were not kept, `tolerance`, a share of its own value. The percentile is interpolated
    linearly. With 50 it is the median stopping rule (Golovin et al. 2017, "Google Vizier", section 3.2.2).

    Peers are all other trials that have reached that share, also running ones; with fewer than `min_peers` no trial
    stops. Peers that were stopped before that share do not count, so the bar rises with the survivors, and the first
    trials to reach it are not stopped there.
    """

    percentile: float = 25.0
    min_fraction: float = 0.2
    min_peers: int = 3
    tolerance: float = 0.02
    standard_errors: float = 2.0

    def _loses(self, peers: Peers, number: int, curve: Curve) -> bool:
        share = curve[-1][0]
        arrived = [n for n, c in peers.curves.items() if n != number and c and c[-1][0] >= share - EPSILON]
        best = sorted(found for n in arrived if (found := best_look(peers, n, share)) is not None)
        own = best_look(peers, number, share)
        if share < self.min_fraction - EPSILON or len(best) < max(1, self.min_peers) or own is None:
            return False
        position = self.percentile / 100 * (len(best) - 1)
        _, peer = best[math.ceil(position)]
        bar = self.noise.bar(peers, own[1], peer)
        return _interpolated([key for key, _ in best], position) < bar


@dataclass(frozen=True)
class Median(NoisyRule):
    """The median stopping rule (Golovin et al. 2017, "Google Vizier", section 3.2.2): `Percentile` at 50.

    Vizier takes the median over finished trials; here running peers that have reached the same share count too.
    """

    min_fraction: float = 0.2
    min_peers: int = 3
    tolerance: float = 0.02
    standard_errors: float = 2.0

    def _loses(self, peers: Peers, number: int, curve: Curve) -> bool:
        numbers = (self.min_fraction, self.min_peers, self.tolerance, self.standard_errors)
        return Percentile(50.0, *numbers).should_prune(peers, number)


def _interpolated(ascending: Sequence[float], position: float) -> float:
    """What lies at a position of sorted numbers, linearly as in `numpy.percentile`; the last ones may be inf."""
    low, high = ascending[math.floor(position)], ascending[math.ceil(position)]
    return low if low == high else low + (high - low) * (position % 1)
