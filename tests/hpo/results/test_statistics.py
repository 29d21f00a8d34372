"""Intervals that hold as often as they say, and a paired test that calls chance by its name: simulated, with seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

import hpo.results.statistics
from hpo.config.objective import Objective
from hpo.results.gaps import FEWEST_ROWS, gap, scores
from hpo.results.statistics import Spread, interval, resample, spread
from trainers.metrics.table import ROW_RESULTS

METRICS = ROW_RESULTS["text-classification"].metrics


def mean_of(rows):
    return float(rows[:, 0].mean())


def f1(rows):
    return METRICS(rows, ["a", "b"])["f1_macro"]


def answers(rng, rate, rows=60):
    """Per-row results of a classifier that is right with a probability."""
    labels = np.arange(rows) % 2
    right = rng.random(rows) < rate
    guessed = np.where(right, labels, 1 - labels)
    return np.stack([labels, guessed, rng.random(rows), 1 - guessed, guessed], axis=1)


# --- how often the truth is inside ----------------------------------------------------------------------


def simulate(rng, seeds, between_seeds, rows=80, effects=(0.0, 0.0)):
    """Contestants of these true means: rows differ by 1, seeds by `between_seeds`, single answers by 0.3."""
    hardness = rng.normal(0, 1, rows)
    return [
        [(effect + hardness + rng.normal(0, between_seeds) + rng.normal(0, 0.3, rows))[:, None] for _ in range(seeds)]
        for effect in effects
    ]


SIMULATIONS = 400
CASES = pytest.mark.parametrize(("seeds", "between_seeds"), [(2, 0.5), (3, 0.0), (3, 0.5), (5, 0.1)])


@CASES
def test_the_truth_lies_in_the_interval_as_often_as_it_says(monkeypatch, seeds, between_seeds):
    """Also where seeds are what varies: a bootstrap of three seeds holds 81 % of the time, of two 69 %."""
    monkeypatch.setattr(hpo.results.statistics, "RESAMPLES", 200)
    rng = np.random.default_rng([seeds, int(between_seeds * 10)])
    held = 0
    for index in range(SIMULATIONS):
        [repeats, _] = simulate(rng, seeds, between_seeds)
        found = interval(repeats, mean_of, resample(repeats, mean_of, 0, index))
        held += found.low <= 0 <= found.high
    assert 0.92 <= held / SIMULATIONS <= 0.995


@CASES
def test_equal_contestants_are_seldom_called_different(seeds, between_seeds):
    assert rate_of_differences(seeds, between_seeds, 0.0) <= 0.065


def rate_of_differences(seeds, between_seeds, effect, contestants=4):
    rng = np.random.default_rng([seeds, int(between_seeds * 10), 7])
    different = 0
    for _ in range(SIMULATIONS):
        repeats = simulate(rng, seeds, between_seeds, effects=(effect, *[0.0] * (contestants - 1)))
        first, second = ([scores(rows, mean_of) for rows in own] for own in repeats[:2])
        different += gap(first, second, spread(repeats, mean_of)).comparison(1).is_beyond_noise
    return different / SIMULATIONS


def test_a_clear_effect_is_seen():
    assert rate_of_differences(3, 0.1, 0.8) > 0.9


def test_seeds_of_all_contestants_together_see_more_than_those_of_two():
    two, four = (rate_of_differences(2, 0.1, 0.3, contestants) for contestants in (2, 4))
    assert four > two + 0.1


# --- on the metrics of a task --------------------------------------------------------------------------


@pytest.fixture
def fewer(monkeypatch):
    monkeypatch.setattr(hpo.results.statistics, "RESAMPLES", 300)


def contestants(*rates, seeds=3):
    rng = np.random.default_rng(3)
    return [[answers(rng, rate) for _ in range(seeds)] for rate in rates]


def judged(repeats, seed=0):
    draws = [resample(r, f1, i, seed) for i, r in enumerate(repeats)]
    return [interval(r, f1, d) for r, d in zip(repeats, draws, strict=True)], draws


def test_an_interval_lies_around_the_mean_over_seeds(fewer):
    [repeats] = contestants(0.8)
    [found], _ = judged([repeats])
    assert found.mean == pytest.approx(np.mean([f1(rows) for rows in repeats]))
    assert found.low < found.mean < found.high
    assert found.high - found.low < 0.4


def compared(first, second, metric_of=f1):
    return gap(*([scores(rows, metric_of) for rows in own] for own in (first, second)), None).comparison(1)


def test_a_comparison_is_the_same_from_both_sides():
    good, bad = contestants(0.9, 0.7)
    there, back = compared(good, bad), compared(bad, good)
    assert (
        there.difference
        == -back.difference
        == pytest.approx(np.mean([f1(r) for r in good]) - np.mean([f1(r) for r in bad]))
    )
    assert there.p_value == back.p_value
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_a_contestant_does_not_differ_from_itself():
    [repeats] = contestants(0.8)
    same = compared(repeats, repeats)
    assert (same.difference, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert not same.is_beyond_noise


def test_equal_seeds_draw_equally_and_others_do_not(fewer):
    [repeats] = contestants(0.8)
    assert (resample(repeats, f1, 1, 5) == resample(repeats, f1, 1, 5)).all()
    assert (resample(repeats, f1, 1, 5) != resample(repeats, f1, 1, 6)).any()
    assert (resample(repeats, f1, 1, 5) != resample(repeats, f1, 2, 5)).any()


def test_contestants_are_compared_on_the_same_rows(fewer):
    """With one seed only rows vary; a better answer on three rows is better in every resample that has one of them."""
    rng = np.random.default_rng(0)
    worse = answers(rng, 0.7, rows=200)
    better = worse.copy()
    wrong = np.flatnonzero(worse[:, 0] != worse[:, 1])[:12]
    better[wrong, 1] = better[wrong, 0]
    (first, second), _ = judged([[better], [worse]])
    assert first.high > second.low + 0.05  # each alone is far from certain
    assert first.low < second.high
    assert compared([better], [worse]).is_beyond_noise


@pytest.mark.parametrize("sign", [1, -1])
def test_the_direction_of_a_metric_plays_no_part(sign):
    rng = np.random.default_rng(1)
    low, high = (rng.normal(mean, 0.1, (60, 1)) for mean in (0.0, sign * 0.5))
    found = compared([low, low + 0.01], [high, high + 0.01], mean_of)
    assert found.is_beyond_noise
    assert math.copysign(1, found.difference) == -sign


def test_rows_that_belong_together_are_drawn_together():
    """Turns of one conversation that all say the same are no more than one row: the interval is as wide."""
    values = np.random.default_rng(4).normal(size=(30, 1))
    turns = np.repeat(values, 5, axis=0)
    units = np.repeat(np.arange(30), 5)
    apart, together = (resample([turns], mean_of, units=each).std() for each in (None, units))
    assert together == pytest.approx(resample([values], mean_of).std())
    assert together > 2 * apart
    of_turns, of_values = (
        gap([scores(rows, mean_of, each)], [scores(rows * 0, mean_of, each)], None)
        for rows, each in ((turns, units), (values, None))
    )
    assert of_turns.row_variance == pytest.approx(of_values.row_variance)
    assert of_turns.row_freedom == of_values.row_freedom == 29


# --- few rows ------------------------------------------------------------------------------------------


def sign_test(differences):
    """The p-value of an exact two-sided sign test of differences that all have one sign."""
    return min(1.0, 2 / 2**differences)


@pytest.mark.parametrize("rows", range(2, 12))
@pytest.mark.parametrize("wobble", [0.0, 0.01])
def test_few_rows_that_all_differ_show_no_more_than_a_sign_test(rows, wobble):
    """Student's t alone would say 0 of rows that differ by the same, and next to 0 where they nearly do."""
    better = np.ones((rows, 1)) + wobble * np.sin(np.arange(rows))[:, None]
    found = compared([better], [np.zeros((rows, 1))], mean_of)
    assert found.p_value == pytest.approx(sign_test(rows), rel=0.2)
    assert found.p_value >= sign_test(rows)
    assert found.is_beyond_noise == (rows >= FEWEST_ROWS) == (found.low > 0)


@pytest.mark.parametrize("differing", range(1, 9))
def test_of_many_rows_only_those_that_differ_count(differing):
    """Of 200 answers four more are right and none is wrong: chance shows that in one case of eight."""
    worse, better = np.zeros((200, 1)), np.zeros((200, 1))
    better[:differing] = 1
    found = compared([better], [worse], mean_of)
    assert found.p_value >= sign_test(differing)
    assert found.is_beyond_noise == (differing >= 6) == (found.low > 0)


def test_chance_claims_a_difference_of_few_right_or_wrong_answers_as_often_as_it_may():
    rng, claims = np.random.default_rng(5), 0
    for _ in range(2000):
        first, second = np.zeros((200, 1)), np.zeros((200, 1))
        sides = rng.random(int(rng.integers(1, 7))) < 0.5
        first[: len(sides)][sides], second[: len(sides)][~sides] = 1, 1
        claims += compared([first], [second], mean_of).is_beyond_noise
    assert claims / 2000 <= 0.05


# --- what seeds tell -----------------------------------------------------------------------------------


def test_the_spread_is_pooled_over_contestants():
    columns = [[0.0, 2.0], [10.0, 10.0, 13.0]]
    contestants = [[np.full((4, 1), value) for value in values] for values in columns]
    pooled = spread(contestants, mean_of)
    assert pooled == Spread(pytest.approx(math.sqrt((2.0 + 6.0) / 3)), 3)


def test_one_seed_tells_nothing_of_seeds(fewer):
    rows = np.arange(10.0)[:, None]
    assert spread([[rows], [rows + 1]], mean_of) == Spread(0.0, 0)
    assert resample([rows], mean_of).std() == pytest.approx(rows.std() / math.sqrt(10), rel=0.2)


def test_an_interval_ends_where_the_metric_does():
    """Two seeds that differ much, 0.3 and 0.9, leave a mean of anything."""
    repeats = [np.full((20, 1), value) for value in (0.3, 0.9)]
    draws = resample(repeats, mean_of)
    wide = interval(repeats, mean_of, draws)
    assert wide.low < 0
    assert wide.high > 1
    cut = interval(repeats, mean_of, draws, Objective("accuracy", "maximize").bounds)
    assert (cut.mean, cut.low, cut.high) == (wide.mean, 0.0, 1.0)
    assert Objective("perplexity", "minimize").bounds == (1.0, math.inf)
    assert Objective("mcc", "maximize").bounds == (-1.0, 1.0)
    assert Objective("my_metric", "minimize").bounds == (-math.inf, math.inf)
