"""Pruning rules: pure functions over the curves of running and finished trials.

Optuna's own rules compare only with finished trials, or wait for one: with eight trials in parallel they would never
prune. These rules use the current curve of every trial, also of those that still run.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Protocol

Curve = Sequence[tuple[float, float]]
"""(share of the full budget that is spent, value) at each evaluation, in order."""

_EPSILON = 1e-9  # shares of the budget that differ by less are equal


class Order(Protocol):
    """The part of an objective that a rule needs."""

    def sort_key(self, value: float) -> float:
        """A key that sorts values from best to worst, with NaN last (inf)."""
        ...


@dataclass(frozen=True)
class Peers:
    """What a rule knows about a sweep."""

    curves: Mapping[int, Curve]
    """The curves of all trials by number: finished, running, and the trial to decide on."""
    order: Order
    losses: Callable[[int, int], Sequence[float] | None]
    """(trial number, evaluation index from 0) -> the loss on each example, where lower is better, or None where losses
    were not kept. All trials have the same rows in the same order."""


class Rule(Protocol):
    """Decides after an evaluation of a trial whether that trial stops.

    Pure: the answer depends on the arguments alone, and not on the order of `peers.curves`.
    """

    def should_prune(self, peers: Peers, number: int) -> bool:
        """Whether trial `number` stops now.

        A trial without evaluations continues. A trial whose last value is NaN stops, under every rule except `Never`.
        """
        ...


@dataclass(frozen=True)
class Never(Rule):
    """Never stops a trial, also not when its value is NaN."""

    def should_prune(self, peers: Peers, number: int) -> bool:
        return False


class _ComparingRule(Rule, ABC):
    """The common part of all rules except `Never`."""

    def should_prune(self, peers: Peers, number: int) -> bool:
        curve = peers.curves.get(number, ())
        return bool(curve) and (math.isnan(curve[-1][1]) or self._loses(peers, number, curve))

    @abstractmethod
    def _loses(self, peers: Peers, number: int, curve: Curve) -> bool:
        """Whether trial `number` stops; the last value of its `curve` is not NaN."""


@dataclass(frozen=True)
class SuccessiveHalving(_ComparingRule):
    """Asynchronous successive halving, stopping variant (Li et al. 2020, arXiv:1810.05934), which decides repeatedly.

    At each rung a trial continues when it is among the best 1/reduction_factor of the trials that have reached the rung
    so far, itself included. While fewer than reduction_factor trials have reached it, the trial must be the best of
    them. Running peers count as soon as they reach the rung, with their value there; no trial waits for others.

    The paper decides once per rung, so an early trial continues to the end because it has no peers yet. Here each
    evaluation decides again at every rung that the trial has passed, because more peers may have reached it. The trial
    is compared by its value at the rung or its latest value, whichever is better: a trial that has caught up is not
    stopped for its past.

    A peer is better only when it is better by more than `tolerance`, a share of the trial's own value: with few trials
    the rule is greedy, and on a few hundred rows the difference of two good trials is noise.
    """

    reduction_factor: int = 3
    min_fraction: float = 0.2
    tolerance: float = 0.02

    def _loses(self, peers: Peers, number: int, curve: Curve) -> bool:
        key = peers.order.sort_key
        for level in rungs(self.min_fraction, self.reduction_factor):
            if (at_rung := _value_at(curve, level)) is None:
                return False
            bar = _bar(peers.order, min(at_rung, curve[-1][1], key=key), self.tolerance)
            arrived = [v for c in peers.curves.values() if (v := _value_at(c, level)) is not None]
            keep = max(1, len(arrived) // self.reduction_factor)
            if sum(key(v) < bar for v in arrived) >= keep:
                return True
        return False


@dataclass(frozen=True)
class Hyperband(_ComparingRule):
    """Asynchronous Hyperband (Li et al. 2018, JMLR 18:185): successive halving in brackets with different first rungs.

    The first rung of bracket s is min_fraction x reduction_factor^s, so that trials that start slowly get a chance.
    Each trial belongs to one bracket and is compared only within it, as in `SuccessiveHalving`. The bracket depends
    only on the trial's number, so neither timing nor a restart changes it.
    """

    reduction_factor: int = 3
    min_fraction: float = 0.1
    tolerance: float = 0.02

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
        halving = SuccessiveHalving(self.reduction_factor, start, self.tolerance)
        return halving.should_prune(replace(peers, curves=inside), number)


@dataclass(frozen=True)
class Percentile(_ComparingRule):
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
        arrived = [c for n, c in peers.curves.items() if n != number and c and c[-1][0] >= share - _EPSILON]
        values = ([key(value) for at, value in c if at <= share + _EPSILON] for c in arrived)
        best = sorted(min(known) for known in values if known)
        if share < self.min_fraction - _EPSILON or len(best) < max(1, self.min_peers):
            return False
        own = min((value for _, value in curve), key=key)
        return _quantile(best, self.percentile / 100) < _bar(peers.order, own, self.tolerance)


@dataclass(frozen=True)
class Median(_ComparingRule):
    """The median stopping rule (Golovin et al. 2017, "Google Vizier", section 3.2.2): `Percentile` at 50.

    Vizier takes the median over finished trials; here running peers that have reached the same share count too.
    """

    min_fraction: float = 0.2
    min_peers: int = 3
    tolerance: float = 0.02

    def _loses(self, peers: Peers, number: int, curve: Curve) -> bool:
        return Percentile(50.0, self.min_fraction, self.min_peers, self.tolerance).should_prune(peers, number)


@dataclass(frozen=True)
class Threshold(_ComparingRule):
    """Stops a trial when its value is outside of [lower, upper]; None means no bound. Peers do not matter.

    The bounds are what you know beforehand, such as the loss of guessing.
    """

    lower: float | None = None
    upper: float | None = None

    def _loses(self, peers: Peers, number: int, curve: Curve) -> bool:
        value = curve[-1][1]
        return (self.lower is not None and value < self.lower) or (self.upper is not None and value > self.upper)


@dataclass(frozen=True)
class Patient(_ComparingRule):
    """Applies another rule, but only to trials that no longer improve.

    A trial stops when `rule` stops it at this evaluation *and* none of its last `patience` values is better by more
    than `min_delta` than the best value before them. This is the "patience" of early stopping (Prechelt 1998, "Early
    stopping - but when?"), as in Optuna's PatientPruner. So no trial stops in its first `patience` evaluations, unless
    its value is NaN. While a trial improves, what `rule` says is ignored and not remembered.

    Running peers count as they do for `rule`.
    """

    rule: Rule = Median()
    patience: int = 2
    min_delta: float = 0.0

    def _loses(self, peers: Peers, number: int, curve: Curve) -> bool:
        keys = [peers.order.sort_key(value) for _, value in curve]
        split = len(keys) - self.patience
        improved = split <= 0 or min(keys[:split]) - min(keys[split:], default=math.inf) > self.min_delta
        return not improved and self.rule.should_prune(peers, number)


@dataclass(frozen=True)
class Paired(_ComparingRule):
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
        if share < self.min_fraction - _EPSILON or (own := peers.losses(number, index)) is None:
            return False
        arrived = {n: c[index] for n, c in peers.curves.items() if n != number and len(c) > index}
        keys = {n: peers.order.sort_key(v) for n, (at, v) in arrived.items() if abs(at - share) < _EPSILON}
        ahead = [n for n in sorted(keys, key=keys.__getitem__) if keys[n] <= peers.order.sort_key(value)]
        for _, equals in groupby(ahead, key=keys.__getitem__):  # any of several equally good peers may show it
            if kept := [losses for n in equals if (losses := peers.losses(n, index)) is not None]:
                return any(_p_value(own, best) < self.alpha for best in kept)
        return False


RULES: Mapping[str, type] = {
    "none": Never,
    "successive_halving": SuccessiveHalving,
    "hyperband": Hyperband,
    "median": Median,
    "percentile": Percentile,
    "threshold": Threshold,
    "patient": Patient,
    "paired": Paired,
}
"""The rules by their names in YAML."""

_GOLDEN = 2654435769  # 2^32 over the golden ratio


def rungs(min_fraction: float, reduction_factor: int) -> list[float]:
    """Shares of the budget at which trials are compared: min_fraction x reduction_factor^k, below 1."""
    levels, level = [], min_fraction
    while level < 1 - _EPSILON:
        levels.append(level)
        level *= reduction_factor
    return levels


def _value_at(curve: Curve, level: float) -> float | None:
    """The value of the first evaluation at or after `level`; None where the curve has not reached it."""
    return next((value for share, value in curve if share >= level - _EPSILON), None)


def _bar(order: Order, value: float, tolerance: float) -> float:
    """The sort key below which another value is better than `value` by more than `tolerance`, a share of `value`."""
    slack = tolerance * abs(value) if math.isfinite(value) else 0.0  # a share of infinity is no tolerance
    return order.sort_key(value) - slack


def _quantile(ascending: Sequence[float], share: float) -> float:
    """The quantile of sorted numbers, interpolated linearly as in `numpy.percentile`; the last ones may be inf."""
    position = share * (len(ascending) - 1)
    low, high = ascending[math.floor(position)], ascending[math.ceil(position)]
    return low if low == high else low + (high - low) * (position % 1)


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
