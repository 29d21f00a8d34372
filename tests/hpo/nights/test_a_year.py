"""A year of nights, repeated: what is promoted is better, and a real gain is found within days."""

from tests.bench.nights import Setting, simulated, summed


def test_at_most_one_of_twenty_promotions_is_false_and_a_gain_of_three_points_is_found():
    year = summed(simulated(Setting(0.05, trainings=2), 16))
    assert year.false_share <= 0.05
    assert year.within[5] >= 0.9
    assert year.within[30] == 1


def test_where_nothing_is_better_nothing_is_promoted():
    year = summed(simulated(Setting(gain=0.0, worse=0.0, trainings=2), 12, seed=1))
    assert year.any_false <= 0.1
    assert year.claims > 5
