"""Pruning rules: pure functions over the curves of running and finished peers.

Optuna's own rules compare with finished trials only, or wait for one: with eight trials side by side they would
never fire. These see every curve as it stands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

Curve = Sequence[tuple[float, float]]
"""(share of the budget spent, value) at each evaluation, in order."""


class Order(Protocol):
    """What a rule needs of an objective: ascending order of the key is best first."""

    def sort_key(self, value: float) -> float: ...


def rungs(min_fraction: float, reduction_factor: int) -> list[float]:
    """Shares of the budget at which trials are compared: min_fraction x reduction_factor^k, below 1."""
    levels = []
    level = min_fraction
    while level < 1 - 1e-9:
        levels.append(level)
        level *= reduction_factor
    return levels


def successive_halving(
    curves: Mapping[int, Curve], number: int, order: Order, *, min_fraction: float, reduction_factor: int,
    tolerance: float = 0.0,
) -> bool:  # fmt: skip
    """Whether trial `number` stops now: asynchronous successive halving (Li et al. 2020, arXiv:1810.05934).

    At each rung a trial goes on when it is among the best 1/reduction_factor of those that have reached that rung
    so far, itself included; while fewer than reduction_factor have, it must be the best of them. The decision falls
    once per rung, at the trial's first evaluation at or after it.

    A peer counts as better only when it is so by more than `tolerance`, a share of the trial's own value: with few
    trials the rule is greedy, and on a few hundred rows the difference of two good trials is noise.
    """
    curve = curves[number]
    reached = curve[-1][0]
    before = curve[-2][0] if len(curve) > 1 else 0.0
    for level in rungs(min_fraction, reduction_factor):
        if before < level - 1e-9 <= reached:
            peers = [v for c in curves.values() if (v := _value_at(c, level)) is not None]
            keep = max(1, len(peers) // reduction_factor)
            value = curve[-1][1]
            to_beat = order.sort_key(value) - (0.0 if math.isnan(value) else tolerance * abs(value))
            better = sum(order.sort_key(v) < to_beat for v in peers)
            if better >= keep:
                return True
    return False


def _value_at(curve: Curve, level: float) -> float | None:
    """The value of the first evaluation at or after `level`, or None where the curve has not come so far."""
    return next((value for fraction, value in curve if fraction >= level - 1e-9), None)
