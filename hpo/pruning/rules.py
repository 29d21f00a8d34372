"""Pruning rules: pure functions over the curves of running and finished peers.

Optuna's own rules compare with finished trials only, or wait for one: with eight trials side by side they would
never fire. These see every curve as it stands, whoever still runs.
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
"""(share of the full budget spent, value) at each evaluation, in order."""

_EPSILON = 1e-9  # shares of the budget closer than this are the same


class Order(Protocol):
    """What a rule needs of an objective: ascending order of the key is best first, NaN last (inf)."""

    def sort_key(self, value: float) -> float: ...


@dataclass(frozen=True)
class Peers:
    """What a rule sees of a sweep."""

    curves: Mapping[int, Curve]
    """Of all trials by number: finished, running, and the one that is asked about."""
    order: Order
    losses: Callable[[int, int], Sequence[float] | None]
    """(trial number, evaluation index from 0) -> its loss on each example, lower is better; the same rows in the same
    order for all trials. None where they were not kept."""


class Rule(Protocol):
    """Decides after an evaluation of trial `number` whether that trial stops.

    Pure: the answer follows from the arguments alone, and the order of `peers.curves` does not matter. A trial
    without evaluations goes on; one whose value is NaN stops, under every rule but `Never`.
    """

    def should_prune(self, peers: Peers, number: int) -> bool: ...


@dataclass(frozen=True)
class Never:
    """Every trial goes on to the end, whatever its peers do and also when its value is NaN."""

    def should_prune(self, peers: Peers, number: int) -> bool:
        return False


class _Judge(ABC):
    """What all rules but `Never` have in common."""

    def should_prune(self, peers: Peers, number: int) -> bool:
        curve = peers.curves.get(number, ())
        return bool(curve) and (math.isnan(curve[-1][1]) or self._loses(peers, number, curve))

    @abstractmethod
    def _loses(self, peers: Peers, number: int, curve: Curve) -> bool:
        """The verdict on trial `number`, whose `curve` ends in a number."""


@dataclass(frozen=True)
class SuccessiveHalving(_Judge):
    """Asynchronous successive halving, stopping variant (Li et al. 2020, arXiv:1810.05934), with second thoughts.

    At each rung a trial goes on when it is among the best 1/reduction_factor of those that have reached that rung
    so far, itself included; while fewer than reduction_factor have, it must be the best of them. Running peers count
    from the moment they reach the rung, with their value there; nobody waits for the others.

    The paper decides once per rung, so who comes early goes on to the end for want of peers. Here each evaluation
    decides again at every rung passed, for more peers may have come. A trial counts there with its value at the rung
    or its latest one, whichever is better: one that has caught up is not stopped for its past.

    A peer counts as better only when it is so by more than `tolerance`, a share of the trial's own value: with few
    trials the rule is greedy, and on a few hundred rows the difference of two good trials is noise.
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
class Hyperband(_Judge):
    """Asynchronous Hyperband (Li et al. 2018, JMLR 18:185): successive halving from several first rungs at once.

    Bracket s halves from min_fraction x reduction_factor^s on: a hedge for trials that start slowly. Each trial
    belongs to one bracket and is compared within it only, with the running peers there as in `SuccessiveHalving`.
    Its number alone says which, so neither timing nor a restart moves it.
    """

    reduction_factor: int = 3
    min_fraction: float = 0.1
    tolerance: float = 0.02

    def bracket(self, number: int) -> int:
        """The bracket of a trial, from 0, the most aggressive one.

        Brackets get the shares of the paper's Algorithm 1; multiples of the golden ratio, modulo 1, spread any run of
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
class Percentile(_Judge):
    """Keep the best `percentile` percent, judged at every evaluation from `min_fraction` on.

    A trial stops when its best value so far is worse than that percentile of its peers' best values up to the same
    share of the budget, by more than `tolerance`, a share of its own value. The percentile is interpolated linearly.
    With 50 it is the median stopping rule (Golovin et al. 2017, "Google Vizier", section 3.2.2).

    Peers are all others that have reached that share, running ones too; fewer than `min_peers` decide nothing. Peers
    stopped before it no longer count, so the bar rises with the survivors; the first to get there are not judged.
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
class Median(_Judge):
    """The median stopping rule (Golovin et al. 2017, "Google Vizier", section 3.2.2): `Percentile` at 50.

    Vizier takes the median over finished trials; here running peers that have come as far count too.
    """

    min_fraction: float = 0.2
    min_peers: int = 3
    tolerance: float = 0.02

    def _loses(self, peers: Peers, number: int, curve: Curve) -> bool:
        return Percentile(50.0, self.min_fraction, self.min_peers, self.tolerance).should_prune(peers, number)


@dataclass(frozen=True)
class Threshold(_Judge):
    """A trial stops when its value lies outside [lower, upper]; None leaves a side open.

    No paper: the bounds are what a person knows beforehand (a loss above that of guessing). Peers play no part.
    """

    lower: float | None = None
    upper: float | None = None

    def _loses(self, peers: Peers, number: int, curve: Curve) -> bool:
        value = curve[-1][1]
        return (self.lower is not None and value < self.lower) or (self.upper is not None and value > self.upper)


@dataclass(frozen=True)
class Patient(_Judge):
    """Another rule, with patience for trials that still improve.

    A trial stops when `rule` says so at this evaluation *and* none of its last `patience` values is better by more
    than `min_delta` than the best before them: the "patience" of early stopping (Prechelt 1998, "Early stopping - but
    when?"), as in Optuna's PatientPruner. So nothing stops in its first `patience` evaluations, NaN apart, and what
    `rule` says to a trial that still improves is forgotten.

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
class Paired(_Judge):
    """A trial stops when it is surely worse than the best, example by example.

    One-sided Wilcoxon signed-rank test (Wilcoxon 1945) on the differences of the per-example losses: a race (Maron &
    Moore 1994, "Hoeffding races"; Birattari et al. 2002, "F-Race") against the best peer by value at the same
    evaluation, running or finished, whose losses were kept. Equal losses say nothing and are left out; a NaN is the
    worst loss. `alpha` holds for one comparison and is not corrected for their number.

    A trial whose value is better than that of every such peer goes on, whatever its losses: the metric is the
    objective. Without losses, and without peers at this evaluation, nothing is decided.
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
        for _, equals in groupby(ahead, key=keys.__getitem__):  # of equally good ones, each may show it
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
"""The rules by the name they have in YAML."""

_GOLDEN = 2654435769  # 2^32 over the golden ratio


def rungs(min_fraction: float, reduction_factor: int) -> list[float]:
    """Shares of the budget at which trials are compared: min_fraction x reduction_factor^k, below 1."""
    levels, level = [], min_fraction
    while level < 1 - _EPSILON:
        levels.append(level)
        level *= reduction_factor
    return levels


def _value_at(curve: Curve, level: float) -> float | None:
    """The value of the first evaluation at or after `level`, or None where the curve has not come so far."""
    return next((value for share, value in curve if share >= level - _EPSILON), None)


def _bar(order: Order, value: float, tolerance: float) -> float:
    """The sort key below which another value is better than `value` by more than `tolerance`, a share of `value`."""
    slack = tolerance * abs(value) if math.isfinite(value) else 0.0  # an infinite loss has no share to be lenient by
    return order.sort_key(value) - slack


def _quantile(ascending: Sequence[float], share: float) -> float:
    """The quantile of sorted numbers, interpolated linearly as by `numpy.percentile`; the last ones may be inf."""
    position = share * (len(ascending) - 1)
    low, high = ascending[math.floor(position)], ascending[math.ceil(position)]
    return low if low == high else low + (high - low) * (position % 1)


def _p_value(own: Sequence[float], other: Sequence[float]) -> float:
    """How likely losses as much above the `other` ones as `own` are by chance; 1 when no two differ."""
    import numpy as np  # here, and scipy too: loading them takes a second that no other rule needs
    from scipy.stats import wilcoxon

    mine, theirs = (np.where(np.isnan(losses), np.inf, losses) for losses in (own, other))
    worse_by = mine[differ := mine != theirs] - theirs[differ]
    if not len(worse_by):
        return 1.0
    # By default scipy permutes few tied numbers for seconds; "exact" takes milliseconds, and ties make it conservative.
    method = "exact" if len(worse_by) <= 50 else "asymptotic"
    return float(wilcoxon(worse_by, alternative="greater", method=method).pvalue)
