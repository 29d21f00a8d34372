"""Paired: a trial that is significantly worse than the best one, compared example by example, stops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from hpo.pruning.base import EPSILON, ComparingRule, Curve, Peers


@dataclass(frozen=True)
class Paired(ComparingRule):
    """Stops a trial that is significantly worse than the best one, compared example by example.

    It is a one-sided Wilcoxon signed-rank test (Wilcoxon 1945) on the differences of the losses on each example: a race
    (Maron & Moore 1994, "Hoeffding races"; Birattari et al. 2002, "F-Race") against the peer with the best value at the
    same evaluation whose losses were kept, running or finished. Equal losses are left out; NaN is the worst loss.
    `alpha` is the level of one comparison and is not corrected for their number.

    A trial whose value is better than that of every such peer continues, whatever its losses: the metric is the
    objective. Without losses, or without peers at this evaluation, no trial stops.
    """

    alpha: float = 0.05
    min_fraction: float = 0.2

    def _loses(self, peers: Peers, number: int, curve: Curve) -> bool:
        index, (share, value) = len(curve) - 1, curve[-1]
        if share < self.min_fraction - EPSILON or (own := peers.losses(number, index)) is None:
            return False
        arrived = {n: c[index] for n, c in peers.curves.items() if n != number and len(c) > index}
        keys = {n: peers.order.sort_key(v) for n, (at, v) in arrived.items() if abs(at - share) < EPSILON}
        ahead = [n for n in sorted(keys, key=keys.__getitem__) if keys[n] <= peers.order.sort_key(value)]
        for _, equals in groupby(ahead, key=keys.__getitem__):  # any of several equally good peers may show it
            if kept := [losses for n in equals if (losses := peers.losses(n, index)) is not None]:
                return any(_p_value(own, best) < self.alpha for best in kept)
        return False


def _p_value(own: Sequence[float], other: Sequence[float]) -> float:
    """The p-value of `own` losses being larger than `other` ones by chance; 1 when all are equal."""
    import numpy as np  # late, like scipy: importing them takes a second, and no other rule needs them
    from scipy.stats import wilcoxon

    mine, theirs = (np.where(np.isnan(losses), np.inf, losses) for losses in (own, other))
    worse_by = mine[differ := mine != theirs] - theirs[differ]
    if not len(worse_by):
        return 1.0
    # By default scipy permutes a few tied numbers for seconds. "exact" takes milliseconds; ties make it conservative.
    method = "exact" if len(worse_by) <= 50 else "asymptotic"
    return float(wilcoxon(worse_by, alternative="greater", method=method).pvalue)
