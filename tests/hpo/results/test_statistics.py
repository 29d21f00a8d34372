"""Intervals that hold as often as they say, and a test that calls chance by its name: simulated, with seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

import hpo.results.statistics
from hpo.results.statistics import Spread, compare, interval, resample, spread
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
@pytest.mark.parametrize("is_pooled", [False, True])
def test_equal_contestants_are_seldom_called_different(monkeypatch, seeds, between_seeds, is_pooled):
    assert rate_of_differences(monkeypatch, seeds, between_seeds, 0.0, is_pooled) <= 0.065


def rate_of_differences(monkeypatch, seeds, between_seeds, effect, is_pooled):
    monkeypatch.setattr(hpo.results.statistics, "RESAMPLES", 200)
    rng = np.random.default_rng([seeds, int(between_seeds * 10), 7])
    different = 0
    for index in range(SIMULATIONS):
        repeats = simulate(rng, seeds, between_seeds, effects=(effect, 0.0, 0.0, 0.0))
        between = spread(repeats, mean_of) if is_pooled else None
        draws = [resample(r, mean_of, i, index, between) for i, r in enumerate(repeats[:2])]
        found = [interval(r, mean_of, d) for r, d in zip(repeats, draws, strict=False)]
        different += compare(*found, *draws).is_beyond_noise
    return different / SIMULATIONS


def test_a_clear_effect_is_seen(monkeypatch):
    assert rate_of_differences(monkeypatch, 3, 0.1, 0.8, is_pooled=False) > 0.9


def test_seeds_of_all_contestants_together_see_more_than_each_one_s_own(monkeypatch):
    own = rate_of_differences(monkeypatch, 3, 0.1, 0.3, is_pooled=False)
    pooled = rate_of_differences(monkeypatch, 3, 0.1, 0.3, is_pooled=True)
    assert pooled > 0.7 > own + 0.2


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


def test_a_comparison_is_the_same_from_both_sides(fewer):
    (good, bad), (good_draws, bad_draws) = judged(contestants(0.9, 0.7))
    there, back = compare(good, bad, good_draws, bad_draws), compare(bad, good, bad_draws, good_draws)
    assert there.difference == -back.difference == pytest.approx(good.mean - bad.mean)
    assert there.p_value == back.p_value
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_a_contestant_does_not_differ_from_itself(fewer):
    (found,), (draws,) = judged(contestants(0.8))
    same = compare(found, found, draws, draws)
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
    (first, second), (first_draws, second_draws) = judged([[better], [worse]])
    assert first.high > second.low + 0.05  # each alone is far from certain
    assert first.low < second.high
    assert compare(first, second, first_draws, second_draws).is_beyond_noise


@pytest.mark.parametrize("sign", [1, -1])
def test_the_direction_of_a_metric_plays_no_part(fewer, sign):
    rng = np.random.default_rng(1)
    low, high = (rng.normal(mean, 0.1, (60, 1)) for mean in (0.0, sign * 0.5))
    draws = [resample([rows, rows + 0.01], mean_of, i) for i, rows in enumerate((low, high))]
    found = [interval([rows, rows + 0.01], mean_of, d) for rows, d in zip((low, high), draws, strict=True)]
    compared = compare(*found, *draws)
    assert compared.is_beyond_noise
    assert math.copysign(1, compared.difference) == -sign


def test_the_observed_sample_counts_as_one_of_the_resamples(fewer):
    """So no p-value is zero: 300 resamples cannot show less than 2 in 301."""
    (good, bad), (good_draws, bad_draws) = judged(contestants(1.0, 0.05))
    assert compare(good, bad, good_draws, bad_draws).p_value == pytest.approx(2 / 301)


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
