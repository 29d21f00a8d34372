"""Successive halving and Hyperband: trials are compared at rungs, shares of the budget that grow by a factor."""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass, replace
from itertools import accumulate

from hpo.pruning.base import EPSILON, Curve, NoisyRule, Peers, value_at

_GOLDEN = 2654435769  # 2^32 over the golden ratio


@dataclass(frozen=True)
class SuccessiveHalving(NoisyRule):
    """Asynchronous successive halving, stopping variant (Li et al. 2020, arXiv:1810.05934), which decides repeatedly.

    At each rung a trial continues when it is among the best 1/reduction_factor of the trials that have reached the rung
    so far, itself included. While fewer than reduction_factor trials have reached it, the trial must be the best of
    them. Running peers count as soon as they reach the rung, with their value there; no trial waits for others.

    The paper decides once per rung, so an early trial continues to the end because it has no peers yet. Here each
    evaluation decides again at every rung that the trial has passed, because more peers may have reached it. The trial
    is compared by its value at the rung or its latest value, whichever is better: a trial that has caught up is not
    stopped for its past.

    It stops only when the last one of these is better by more than noise: `standard_errors` of their difference on the
    same rows, or, where rows were not kept, `tolerance`, a share of the trial's own value. With few trials the rule is
    greedy, and on a few hundred rows the difference of two good trials is noise.
    """

    reduction_factor: int = 3
    min_fraction: float = 0.2
    tolerance: float = 0.02
    standard_errors: float = 2.0

    def _loses(self, peers: Peers, number: int, curve: Curve) -> bool:
        key = peers.order.sort_key
        for level in rungs(self.min_fraction, self.reduction_factor):
            if (at_rung := _index_at(curve, level)) is None:
                return False
            own = (number, min(at_rung, len(curve) - 1, key=lambda index: key(curve[index][1])))
            arrived = [(n, i) for n, c in peers.curves.items() if (i := _index_at(c, level)) is not None]
            last_kept = max(1, len(arrived) // self.reduction_factor) - 1
            others = sorted((key(value_at(peers, peer)), peer) for peer in arrived if peer[0] != number)
            if last_kept < len(others) and others[last_kept][0] < self.noise.bar(peers, own, others[last_kept][1]):
                return True
        return False


@dataclass(frozen=True)
class Hyperband(NoisyRule):
    """Asynchronous Hyperband (Li et al. 2018, JMLR 18:185): successive halving in brackets with different first rungs.

    The first rung of bracket s is min_fraction x reduction_factor^s, so that trials that start slowly get a chance.
    Each trial belongs to one bracket and is compared only within it, as in `SuccessiveHalving`. The bracket depends
    only on the trial's number, so neither timing nor a restart changes it.
    """

    reduction_factor: int = 3
    min_fraction: float = 0.1
    tolerance: float = 0.02
    standard_errors: float = 2.0

    def bracket(self, number: int) -> int:
        """The bracket of a trial; 0 is the most aggressive one.

        Brackets get the shares of the paper's Algorithm 1. Multiples of the golden ratio, modulo 1, spread consecutive
        numbers evenly over them.
        """
        count = len(rungs(self.min_fraction, self.reduction_factor))
        sizes = [-(-count * self.reduction_factor**left // (left + 1)) for left in reversed(range(count))]
        *starts, total = accumulate(sizes)
        return bisect(starts, (number * _GOLDEN % 2**32) * total >> 32)

    def _loses(self, peers: Peers, number: int, curve: Curve) -> bool:
        own = self.bracket(number)
        inside = {n: c for n, c in peers.curves.items() if self.bracket(n) == own}
        start = rungs(self.min_fraction, self.reduction_factor)[own]
        halving = SuccessiveHalving(self.reduction_factor, start, self.tolerance, self.standard_errors)
        return halving.should_prune(replace(peers, curves=inside), number)


def rungs(min_fraction: float, reduction_factor: int) -> list[float]:
    """Shares of the budget at which trials are compared: min_fraction x reduction_factor^k, below 1."""
    levels, level = [], min_fraction
    while level < 1 - EPSILON:
        levels.append(level)
        level *= reduction_factor
    return levels


def _index_at(curve: Curve, level: float) -> int | None:
    """The first evaluation at or after `level`; None where the curve has not reached it."""
    return next((index for index, (share, _) in enumerate(curve) if share >= level - EPSILON), None)
