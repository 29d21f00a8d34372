"""A stopped trial goes on when it is level with the champion at the share where it was stopped."""

from __future__ import annotations

import math

import pytest

from hpo.config.objective import Objective
from hpo.pruning.base import Never, Noise, Peers
from hpo.pruning.halving import Hyperband, SuccessiveHalving
from hpo.pruning.paired import Paired
from hpo.pruning.patient import Patient
from hpo.pruning.percentile import Median, Percentile
from hpo.pruning.second_chance import second_chance
from hpo.pruning.threshold import Threshold

UP, DOWN = Objective("accuracy", "maximize"), Objective("loss", "minimize")
NOISE = Noise(standard_errors=2.0, tolerance=0.02)


def peers(curves, order=UP, error=0.01):
    return Peers(curves, order, lambda _n, _i: None, lambda _a, _b: error)


CHAMPION = [(0.2, 0.5), (0.4, 0.6), (1.0, 0.9)]


@pytest.mark.parametrize(("value", "goes_on"), [(0.53, True), (0.481, True), (0.479, False)])
@pytest.mark.parametrize("order", [UP, DOWN])
def test_a_trial_within_two_standard_errors_goes_on(value, goes_on, order):
    sign = 1 if order == UP else -1
    curves = {0: [(share, sign * v) for share, v in CHAMPION], 1: [(0.2, sign * value)]}
    assert second_chance(NOISE, peers(curves, order), [1], 0) == (1 if goes_on else None)


def test_the_one_that_is_least_behind_goes_on_wherever_it_was_stopped():
    curves = {0: CHAMPION, 1: [(0.2, 0.49)], 2: [(0.2, 0.4), (0.4, 0.595)], 3: [(0.2, 0.3)]}
    assert second_chance(NOISE, peers(curves), [1, 2, 3], 0) == 2
    assert second_chance(NOISE, peers(curves), [3, 1], 0) == 1
    assert second_chance(NOISE, peers(curves), [3], 0) is None


def test_one_that_is_further_behind_goes_on_where_only_its_rows_say_that_it_is_noise():
    curves = {0: CHAMPION, 1: [(0.2, 0.45)], 2: [(0.2, 0.4)], 3: [(0.2, math.nan)]}
    rows = Peers(curves, UP, lambda _n, _i: None, lambda own, _champion: 0.06 if own[0] == 2 else 0.01)
    assert second_chance(NOISE, rows, [3, 1, 2], 0) == 2


def test_without_rows_the_tolerance_says_what_noise_is():
    curves = {0: CHAMPION, 1: [(0.2, 0.491)]}
    assert second_chance(NOISE, peers(curves, error=None), [1], 0) == 1
    assert second_chance(Noise(2.0, 0.01), peers(curves, error=None), [1], 0) is None


def test_a_value_that_is_no_number_ends_a_trial():
    curves = {0: CHAMPION, 1: [(0.2, 0.6), (0.4, math.nan)]}
    assert second_chance(NOISE, peers(curves), [1], 0) is None


def test_where_the_champion_has_no_evaluation_up_to_that_share_nothing_is_compared():
    curves = {0: [(0.5, 0.9)], 1: [(0.2, 0.95)]}
    assert second_chance(NOISE, peers(curves), [1], 0) is None


def test_every_rule_that_compares_values_has_its_noise():
    for rule in (Percentile, Median, SuccessiveHalving, Hyperband):
        assert rule(tolerance=0.1, standard_errors=3.0).noise == Noise(3.0, 0.1)
    assert Patient(Median(standard_errors=1.0)).noise == Noise(1.0, 0.02)
    assert [rule.noise for rule in (Never(), Threshold(0.5, None), Paired())] == [None] * 3
