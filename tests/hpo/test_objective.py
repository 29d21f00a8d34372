"""Which of two values is better."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.objective import Objective

UP, DOWN = Objective("accuracy", "maximize"), Objective("loss", "minimize")
OBJECTIVES = st.sampled_from([UP, DOWN])
VALUES = st.floats(allow_nan=False, allow_infinity=False)


def test_better_follows_the_direction():
    assert UP.better(2, 1)
    assert not UP.better(1, 2)
    assert DOWN.better(1, 2)
    assert not DOWN.better(2, 1)


@pytest.mark.parametrize("objective", [UP, DOWN])
def test_equal_values_are_not_better(objective):
    assert not objective.better(1, 1)


@pytest.mark.parametrize("objective", [UP, DOWN])
@pytest.mark.parametrize("number", [0.0, math.inf, -math.inf])
def test_nan_is_worse_than_anything(objective, number):
    assert objective.better(number, math.nan)
    assert not objective.better(math.nan, number)
    assert not objective.better(math.nan, math.nan)


@given(OBJECTIVES, VALUES, VALUES)
def test_the_sort_key_agrees_with_better(objective, a, b):
    assert objective.better(a, b) == (objective.sort_key(a) < objective.sort_key(b))


@given(OBJECTIVES, st.lists(VALUES, min_size=1))
def test_nan_sorts_last(objective, values):
    assert math.isnan(sorted([math.nan, *values], key=objective.sort_key)[-1])


@pytest.mark.parametrize(
    ("objective", "value", "reference", "drop"),
    [
        (UP, 0.9, 1.0, 0.1),
        (UP, 1.1, 1.0, -0.1),
        (DOWN, 1.1, 1.0, 0.1),
        (DOWN, 0.9, 1.0, -0.1),
        (DOWN, 3.0, 2.0, 0.5),
        (UP, -3.0, -2.0, 0.5),
        (DOWN, -3.0, -2.0, -0.5),
    ],
)
def test_the_relative_drop_is_a_share_of_the_reference(objective, value, reference, drop):
    assert objective.relative_drop(value, reference) == pytest.approx(drop)


def test_against_a_reference_of_zero_any_worsening_is_infinite():
    assert UP.relative_drop(0.0, 0.0) == 0
    assert UP.relative_drop(0.1, 0.0) == 0
    assert UP.relative_drop(-0.1, 0.0) == math.inf
    assert DOWN.relative_drop(0.1, 0.0) == math.inf


@given(OBJECTIVES, VALUES, VALUES)
def test_a_drop_is_positive_only_when_worse(objective, value, reference):
    drop = objective.relative_drop(value, reference)
    assert (drop > 0) <= objective.better(reference, value)
