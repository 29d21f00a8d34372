from __future__ import annotations

import math

import pytest

from trainers.training.early_stopping import EarlyStopping


@pytest.mark.parametrize(
    ("direction", "values", "best", "stopped"),
    [
        ("maximize", [0.1, 0.2, 0.15, 0.19], 0.2, True),
        ("minimize", [3.0, 2.0, 2.5, 1.9], 1.9, False),
        ("maximize", [0.1, math.nan, math.nan], 0.1, True),
        ("maximize", [math.nan, 0.1], 0.1, False),
    ],
)
def test_patience_of_two(direction, values, best, stopped):
    stopping = EarlyStopping(direction, patience=2)
    for value in values:
        stopping.is_best(value)
    assert stopping.best == best
    assert stopping.should_stop is stopped


def test_a_small_step_is_kept_but_does_not_buy_patience():
    stopping = EarlyStopping("maximize", patience=2, min_delta=0.05)
    assert [stopping.is_best(v) for v in (0.50, 0.51, 0.52)] == [True, True, True]
    assert stopping.should_stop
