"""The e-value, against betting done row by row in exact fractions, and against every outcome that rows can have."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.certify.evidence import AIMED, STAKES, e_value, is_ahead

NONE = np.zeros(0)
STAKES_AS_FRACTIONS = [Fraction(number, 50) for number in range(1, 50)]
ROWS = st.lists(st.sampled_from([-1, 0, 1]), max_size=6)
SPREAD = 1 - AIMED


def wealth(stake, differences):
    """What a bettor has in the end who keeps a stake: the definition, in exact arithmetic."""
    return math.prod((1 + stake * difference for difference in differences), start=Fraction(1))


@given(ROWS)
def test_money_that_is_spread_over_stakes_is_the_mean_wealth_of_their_bettors(differences):
    assert STAKES.tolist() == [float(stake) for stake in STAKES_AS_FRACTIONS]
    expected = float(sum(wealth(stake, differences) for stake in STAKES_AS_FRACTIONS) / len(STAKES))
    aimed = AIMED  # who aims at less than it has does not bet
    assert e_value(np.array(differences, float), NONE, AIMED) == pytest.approx(aimed + SPREAD * expected, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.integers(0, 10), st.integers(0, 10), st.floats(1, 1e4))
def test_where_the_new_model_is_not_better_its_mean_over_all_outcomes_is_at_most_one(choosing, wins, more, target):
    """Exactly 1 where both are equally good: nothing is given away."""
    chances = {1: Fraction(wins, 40), -1: Fraction(wins + more, 40)}
    chances[0] = 1 - sum(chances.values())
    mean = 0.0
    for outcome in itertools.product(chances, repeat=4):
        chance = math.prod(chances[one] for one in outcome)
        mean += float(chance) * e_value(np.array(outcome, float), np.array(choosing, float), target)
    assert mean <= 1 + 1e-9
    if more == 0:
        assert mean == pytest.approx(1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.1, 1), min_size=2, max_size=4), st.floats(1, 1e4))
def test_that_holds_for_differences_of_any_size(sizes, target):
    """Each row has one of these differences or its opposite, with equal chances."""
    outcomes = itertools.product([-1, 1], repeat=len(sizes))
    found = [e_value(np.array(signs) * sizes, np.array(sizes), target) for signs in outcomes]
    assert np.mean(found) == pytest.approx(1)


def test_who_aims_reaches_the_target_with_less_evidence():
    rows = np.repeat([1.0, -1.0, 0.0], [68, 32, 900])
    assert e_value(rows, rows, 500) > 500 > 2 * e_value(rows, rows, 1e30)


def test_it_says_how_strong_the_evidence_is_beyond_the_target_too():
    some, many = (np.repeat([1.0, -1.0, 0.0], [n, n // 4, 1000]) for n in (80, 200))
    assert e_value(many, many, 100) > 1e6 * e_value(some, some, 100) > 1e8


def test_an_e_value_is_a_number_however_many_rows_say_the_same():
    everything = np.ones(100_000)
    assert 1e290 < e_value(everything, everything, 100) <= 1e300
    assert 0 <= e_value(-everything, everything, 100) < 1e-6
    assert e_value(NONE, NONE, 100) == pytest.approx(1)


@pytest.mark.parametrize("wrong", [math.nan, 1.01, -2.0, math.inf])
def test_a_difference_beyond_its_bounds_is_refused(wrong):
    with pytest.raises(ValueError, match="not a number from -1 to 1"):
        e_value(np.array([0.0, wrong]), NONE, 100)


def test_a_claim_needs_a_lead_beyond_noise_on_the_rows_that_choose():
    assert is_ahead(np.repeat([1.0, -1.0, 0.0], [65, 35, 900]))
    assert not is_ahead(np.repeat([1.0, -1.0, 0.0], [58, 42, 900]))
    assert not is_ahead(np.repeat([1.0, -1.0], [40, 60]))
    assert not is_ahead(np.zeros(100))
    assert not is_ahead(np.ones(5))
