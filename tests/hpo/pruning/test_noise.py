"""Rules and noise: a difference within its own error stops nobody, one far beyond it does at the first look."""

from __future__ import annotations

import pytest

from hpo.config.objective import Objective
from hpo.pruning.base import Peers
from hpo.pruning.halving import Hyperband, SuccessiveHalving
from hpo.pruning.percentile import Median, Percentile
from tests.bench.rules import TOLERANT, replayed_with_noise

UP, DOWN = Objective("accuracy", "maximize"), Objective("loss", "minimize")
RULES = [Percentile(), Median(), SuccessiveHalving(min_fraction=0.2)]


def prunes(rule, curves, number, error, order=UP):
    return rule.should_prune(Peers(curves, order, lambda _n, _i: None, error), number)


def at_first_look(*values):
    return {number: [(0.2, value)] for number, value in enumerate(values)}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("order", "sign"), [(UP, -1), (DOWN, 1)])
def test_a_trial_stops_when_it_is_two_standard_errors_behind(rule, order, sign):
    for behind, stops in ((0.019, False), (0.021, True)):
        curves = at_first_look(0.5, 0.5, 0.5, 0.5 + sign * behind)
        assert prunes(rule, curves, 3, lambda _a, _b: 0.01, order) == stops


@pytest.mark.parametrize("rule", RULES)
def test_a_large_error_saves_whom_the_tolerance_would_have_stopped(rule):
    curves = at_first_look(0.8, 0.8, 0.8, 0.7)
    assert prunes(rule, curves, 3, lambda _a, _b: None)
    assert not prunes(rule, curves, 3, lambda _a, _b: 0.06)


def test_the_error_is_asked_of_the_two_evaluations_that_are_compared():
    asked = []

    def error(own, peer):
        asked.append((own, peer))
        return 0.0

    curves = {
        0: [(0.2, 0.6), (0.4, 0.9)],
        1: [(0.2, 0.8), (0.4, 0.7)],
        2: [(0.2, 0.1), (0.4, 0.2)],
        3: [(0.2, 0.5), (0.4, 0.4)],
    }
    assert prunes(Percentile(0.0), curves, 3, error)
    assert asked == [((3, 0), (0, 1))]  # its best evaluation, and the best one of the best peer
    asked.clear()
    assert prunes(SuccessiveHalving(min_fraction=0.4, standard_errors=1.0), curves, 3, error)
    assert asked == [((3, 1), (0, 1))]  # one of four is kept: the best peer at the rung decides


def test_brackets_use_errors_too():
    rule = Hyperband(min_fraction=0.2)
    inside = [number for number in range(20) if rule.bracket(number) == 0][:4]
    curves = dict(zip(inside, at_first_look(0.8, 0.8, 0.8, 0.7).values(), strict=True))
    assert prunes(rule, curves, inside[3], lambda _a, _b: 0.01)
    assert not prunes(rule, curves, inside[3], lambda _a, _b: 0.1)


@pytest.mark.parametrize("count", [8, 24])
def test_on_curves_with_the_noise_of_few_rows_errors_lose_less_than_a_tolerance(count):
    time, lost = replayed_with_noise(Percentile(), count, 2)
    tolerant_time, tolerant_lost = replayed_with_noise(Percentile(), count, 2, error=TOLERANT)
    assert lost < 0.8 * tolerant_lost
    assert time < 1.1 * tolerant_time


def test_among_few_points_chances_lose_less_at_little_cost():
    time, lost = replayed_with_noise(Percentile(), 8, 2, chances=True)
    without_time, without_lost = replayed_with_noise(Percentile(), 8, 2)
    assert lost < 0.8 * without_lost
    assert time < 1.1 * without_time
