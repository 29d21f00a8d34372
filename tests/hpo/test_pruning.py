"""Asynchronous successive halving over curves that are still growing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.objective import Objective
from hpo.pruning import rungs, successive_halving

UP, DOWN = Objective("accuracy", "maximize"), Objective("loss", "minimize")


def prune(curves, number, order=UP, *, min_fraction=0.2, reduction_factor=3):
    return successive_halving(curves, number, order, min_fraction=min_fraction, reduction_factor=reduction_factor)


def first_at(curve, level):
    return next((value for fraction, value in curve if fraction >= level - 1e-9), None)


FRACTIONS = [i / 10 for i in range(1, 11)]
CURVE = st.integers(1, 10).flatmap(
    lambda n: st.lists(st.floats(-5, 5), min_size=n, max_size=n).map(lambda v: list(zip(FRACTIONS, v, strict=False)))
)
CURVES = st.lists(CURVE, min_size=1, max_size=8).map(lambda curves: dict(enumerate(curves)))
RULES = st.fixed_dictionaries(
    {"min_fraction": st.sampled_from([0.1, 0.2, 0.35]), "reduction_factor": st.integers(2, 4)}
)


@pytest.mark.parametrize(
    ("min_fraction", "factor", "levels"),
    [(0.2, 3, [0.2, 0.6]), (0.1, 2, [0.1, 0.2, 0.4, 0.8]), (0.5, 2, [0.5]), (0.9, 3, [0.9]), (1 / 3, 3, [1 / 3])],
)
def test_rungs_grow_by_the_factor_and_end_below_the_whole(min_fraction, factor, levels):
    assert rungs(min_fraction, factor) == pytest.approx(levels)


@given(CURVES, RULES, st.sampled_from([UP, DOWN]))
def test_the_best_of_a_rung_is_never_pruned(curves, rule, order):
    for number, curve in curves.items():
        own = order.sort_key(curve[-1][1])
        levels = rungs(rule["min_fraction"], rule["reduction_factor"])
        peers = [order.sort_key(v) for c in curves.values() for r in levels if (v := first_at(c, r)) is not None]
        if all(own <= peer for peer in peers):
            assert not prune(curves, number, order, **rule)


@given(CURVES, RULES, st.sampled_from([UP, DOWN]))
def test_a_trial_is_judged_only_where_it_crosses_a_rung(curves, rule, order):
    for number, curve in curves.items():
        before = curve[-2][0] if len(curve) > 1 else 0.0
        crosses = any(before < r - 1e-9 <= curve[-1][0] for r in rungs(rule["min_fraction"], rule["reduction_factor"]))
        if not crosses:
            assert not prune(curves, number, order, **rule)


@given(CURVES, RULES)
def test_minimizing_is_maximizing_the_negative(curves, rule):
    negated = {n: [(fraction, -value) for fraction, value in c] for n, c in curves.items()}
    for number in curves:
        assert prune(curves, number, UP, **rule) == prune(negated, number, DOWN, **rule)


@given(CURVES, RULES)
def test_at_most_the_kept_share_and_ties_survive_a_full_rung(curves, rule):
    """Once all have arrived, whoever would go on is among the best 1/factor."""
    level = rule["min_fraction"]
    at_rung = {n: v for n, c in curves.items() if (v := first_at(c, level)) is not None}
    short = {n: [(level, value)] for n, value in at_rung.items()}
    keep = max(1, len(short) // rule["reduction_factor"])
    best = sorted(at_rung.values(), reverse=True)[:keep]
    for number, value in at_rung.items():
        assert prune(short, number, UP, **rule) == (value < best[-1])


@pytest.mark.parametrize(("order", "good", "bad"), [(UP, 0.8, 0.1), (DOWN, 0.1, 0.8)])
def test_a_bad_trial_is_stopped_while_all_others_still_run(order, good, bad):
    curves = {1: [(0.2, good)], 2: [(0.2, good)], 3: [(0.2, bad)]}
    assert prune(curves, 3, order)
    assert not prune(curves, 1, order)


def test_the_first_to_arrive_goes_on_whatever_its_value():
    assert not prune({1: [(0.2, 0.0)], 2: [(0.1, 0.9)]}, 1)


def test_until_enough_have_arrived_only_the_best_goes_on():
    assert prune({1: [(0.2, 0.9)], 2: [(0.2, 0.8)]}, 2)
    assert not prune({1: [(0.2, 0.8)], 2: [(0.2, 0.9)]}, 2)


def test_peers_are_compared_at_the_rung_not_at_their_latest_value():
    curves = {1: [(0.2, 0.3), (0.4, 0.9)], 2: [(0.2, 0.5)]}
    assert not prune(curves, 2)


def test_after_passing_a_rung_a_trial_is_safe_until_the_next():
    curves = {1: [(0.2, 0.9)], 2: [(0.2, 0.9), (0.4, 0.0)]}
    assert not prune(curves, 2)
    curves = {1: [(0.2, 0.9), (0.6, 0.9)], 2: [(0.2, 0.9), (0.4, 0.0), (0.6, 0.0)]}
    assert prune(curves, 2)


def test_one_evaluation_may_cross_two_rungs():
    first_only = {1: [(0.2, 0.9)], 2: [(0.7, 0.1)]}
    assert prune(first_only, 2)
    second_only = {1: [(0.2, 0.0), (0.6, 0.9)], 2: [(0.7, 0.1)]}
    assert prune(second_only, 2)


def test_nan_loses_against_any_number():
    assert prune({1: [(0.2, 0.0)], 2: [(0.2, float("nan"))]}, 2)
    assert not prune({1: [(0.2, 0.0)], 2: [(0.2, float("nan"))]}, 1)


@pytest.mark.parametrize("count", [3, 6, 9])
def test_a_third_goes_on(count):
    curves = {n: [(0.2, n / 100)] for n in range(count)}
    assert sum(not prune(curves, n) for n in curves) == count // 3


@pytest.mark.parametrize(("order", "leader", "close", "behind"), [(UP, 0.80, 0.79, 0.75), (DOWN, 20.0, 20.3, 21.0)])
def test_a_peer_that_is_better_by_less_than_the_tolerance_does_not_count(order, leader, close, behind):
    def stops(value, tolerance):
        curves = {0: [(0.2, leader)], 1: [(0.2, value)]}
        return successive_halving(curves, 1, order, min_fraction=0.2, reduction_factor=3, tolerance=tolerance)

    assert stops(close, 0.0)
    assert not stops(close, 0.02)
    assert stops(behind, 0.02)
