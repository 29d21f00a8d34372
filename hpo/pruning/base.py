"""What a pruning rule is: a pure function over the curves of running and finished trials.

Optuna's own rules compare only with finished trials, or wait for one: with eight trials in parallel they would never
prune. These rules use the current curve of every trial, also of those that still run.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

Curve = Sequence[tuple[float, float]]
"""(share of the full budget that is spent, value) at each evaluation, in order."""


EPSILON = 1e-9
"""Shares of the budget that differ by less are equal."""


Look = tuple[int, int]
"""One evaluation: (trial number, its index in the curve, from 0)."""


def _not_kept(first: Look, second: Look) -> float | None:
    return None


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
    error: Callable[[Look, Look], float | None] = _not_kept
    """The standard error of the difference between the values of two evaluations on the same rows; None where the rows
    were not kept."""


class Rule(Protocol):
    """Decides after an evaluation of a trial whether that trial stops.

    Pure: the answer depends on the arguments alone, and not on the order of `peers.curves`.
    """

    def should_prune(self, peers: Peers, number: int) -> bool:
        """Whether trial `number` stops now.

        A trial without evaluations continues. A trial whose last value is NaN stops, under every rule except `Never`.
        """
        ...

    @property
    def noise(self) -> Noise | None:
        """Within what differences count as noise; None for a rule that compares no values."""
        return None


@dataclass(frozen=True)
class Never(Rule):
    """Never stops a trial, also not when its value is NaN."""

    def should_prune(self, peers: Peers, number: int) -> bool:
        return False


class ComparingRule(Rule, ABC):
    """The common part of all rules except `Never`."""

    def should_prune(self, peers: Peers, number: int) -> bool:
        curve = peers.curves.get(number, ())
        return bool(curve) and (math.isnan(curve[-1][1]) or self._loses(peers, number, curve))

    @abstractmethod
    def _loses(self, peers: Peers, number: int, curve: Curve) -> bool:
        """Whether trial `number` stops; the last value of its `curve` is not NaN."""


@dataclass(frozen=True)
class Noise:
    """How much better a peer must be to count as better; less is noise."""

    standard_errors: float
    """Of the difference on the same rows."""
    tolerance: float
    """Where rows were not kept: a share of the value."""

    def slack(self, peers: Peers, own: Look, peer: Look) -> float:
        """By how much the value of `peer` must be better than that of `own`."""
        if (error := peers.error(own, peer)) is not None:
            return self.standard_errors * error
        value = value_at(peers, own)
        return self.tolerance * abs(value) if math.isfinite(value) else 0.0  # a share of infinity is no tolerance

    def bar(self, peers: Peers, own: Look, peer: Look) -> float:
        """The sort key below which the value of `peer` counts as better than that of `own`."""
        return peers.order.sort_key(value_at(peers, own)) - self.slack(peers, own, peer)


class NoisyRule(ComparingRule):
    """The common part of rules to which a small difference between two values is noise."""

    standard_errors: float
    tolerance: float

    @property
    def noise(self) -> Noise:
        return Noise(self.standard_errors, self.tolerance)


def best_look(peers: Peers, number: int, share: float) -> tuple[float, Look] | None:
    """Sort key and evaluation of a trial's best value up to a share of the budget; None before its first one."""
    curve = peers.curves.get(number, ())
    keys = ((peers.order.sort_key(value), (number, i)) for i, (at, value) in enumerate(curve) if at <= share + EPSILON)
    return min(keys, default=None)


def value_at(peers: Peers, look: Look) -> float:
    """The value of one evaluation."""
    number, index = look
    return peers.curves[number][index][1]
