"""The race alone: what it asks for, whom it drops, and how often it errs, simulated."""

from __future__ import annotations

import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.results.gaps import Gap, Scores, gap, scores
from hpo.results.race import Entrant, Race, Training
from hpo.results.statistics import Spread
from tests.bench.race import SETTINGS, replayed, share

FINALS = 1000
CAP = 3


def training(value, wobble=0.002):
    """One whose rows say `value`, give or take."""
    without = value + wobble * np.sin(np.arange(20) * (1 + value))
    found = Scores(value, without)
    return Training(found, found)


def entrant(trial, *values, searched=None):
    """A contestant with the values of its seeds so far; None failed. Trial 0 is the baseline."""
    trained = {seed: None if value is None else training(value) for seed, value in enumerate(values)}
    return Entrant(trial, trial == 0, trained, None if searched is None else training(searched))


def raced(*entrants, sign=1, cap=CAP):
    return Race(entrants, cap, sign).standing()


# --- what comes next -----------------------------------------------------------------------------------


def test_all_contestants_begin_with_the_same_seed_best_first():
    standing = raced(entrant(2), entrant(1), entrant(0))
    assert standing.following == ((2, 0), (1, 0), (0, 0))
    assert not standing.is_over


def test_nothing_is_decided_before_a_round_is_complete():
    assert raced(entrant(2, 0.99), entrant(1), entrant(0, 0.1)).following == ((1, 0),)
    assert raced(entrant(2, 0.99), entrant(1), entrant(0, 0.1)).dropped == ()


def test_who_cannot_win_any_more_is_dropped_and_the_rest_goes_on():
    standing = raced(
        entrant(2, 0.80, searched=0.801), entrant(1, 0.60, searched=0.602), entrant(0, 0.795, searched=0.792)
    )
    assert (standing.dropped[0].trial, standing.dropped[0].seeds, standing.dropped[0].why) == (1, 1, "behind")
    assert all(trial != 1 for trial, _ in standing.following)
    assert standing.still_in == [2, 0]


def test_a_clear_champion_ends_the_race():
    standing = raced(
        entrant(2, 0.90, searched=0.901), entrant(1, 0.60, searched=0.602), entrant(0, 0.50, searched=0.503)
    )
    assert (standing.champion, standing.is_over) == (2, True)
    assert standing.seeds == {2: 1, 1: 1, 0: 1}
    assert {d.trial: d.why for d in standing.dropped} == {1: "behind", 0: "beaten"}


def test_a_metric_to_be_minimized_is_won_by_the_lowest():
    contestants = [entrant(2, 0.2, searched=0.201), entrant(1, 0.6, searched=0.602), entrant(0, 0.9, searched=0.903)]
    assert raced(*contestants, sign=-1).champion == 2
    assert raced(*contestants, sign=1).champion == 0


def test_nothing_is_dropped_where_nothing_is_known_of_seeds():
    """One seed each and no rows of the search: how much a training may vary, nobody can say."""
    standing = raced(entrant(2, 0.9), entrant(0, 0.1))
    assert (standing.following, standing.dropped) == (((2, 1), (0, 1)), ())


def test_a_leader_that_falls_below_the_resting_baseline_is_no_champion():
    """On the rows that certify nobody differs, so the baseline rests after one seed; on those that choose they do."""

    def chosen_by(trial, *values, searched):
        trained = {seed: Training(training(v).choosing, training(0.5).certifying) for seed, v in enumerate(values)}
        return Entrant(trial, trial == 0, trained, Training(training(searched).choosing, training(0.5).certifying))

    first = [chosen_by(2, 0.80, searched=0.83), chosen_by(1, 0.74, searched=0.77), chosen_by(0, 0.75, searched=0.78)]
    standing = raced(*first, cap=2)
    assert ({d.trial: d.why for d in standing.dropped}, standing.following) == ({0: "alike"}, ((2, 1), (1, 1)))
    held = raced(chosen_by(2, 0.80, 0.72, searched=0.83), chosen_by(1, 0.74, 0.70, searched=0.77), first[2], cap=2)
    assert (held.champion, held.seeds) == (2, {2: 2, 1: 2, 0: 1})
    fell = raced(chosen_by(2, 0.80, 0.60, searched=0.83), chosen_by(1, 0.74, 0.70, searched=0.77), first[2], cap=2)
    assert (fell.champion, fell.dropped) == (0, ())


def test_who_fails_is_out_as_if_it_had_never_been_in():
    """Trial 2 had beaten trial 1, and then failed: trial 1 is back."""
    beaten = entrant(1, 0.60, searched=0.602)
    others = (entrant(3, 0.895, searched=0.85), beaten, entrant(0, 0.55, searched=0.60))
    assert (1, "behind") in {(d.trial, d.why) for d in raced(entrant(2, 0.9, searched=0.901), *others[1:]).dropped}
    assert raced(entrant(2, 0.9, None), beaten, others[2]) == raced(beaten, others[2])
    assert 2 not in raced(entrant(2, None), *others).seeds


def test_where_all_fail_there_is_no_champion():
    standing = raced(entrant(2, None), entrant(0, None))
    assert (standing.is_over, standing.champion) == (True, None)


def test_a_contestant_alone_wins_with_its_first_training():
    assert raced(entrant(0)).following == ((0, 0),)
    assert raced(entrant(0, 0.5)).champion == 0


def test_a_metric_that_is_not_a_number_does_not_lead():
    assert raced(entrant(2, float("nan"), cap := 0.5), entrant(0, 0.4, cap), cap=2).champion == 0


# --- properties ----------------------------------------------------------------------------------------

values = st.floats(0, 1, allow_nan=False).map(lambda value: round(value, 3))


@st.composite
def finals(draw):
    """All values that a final would have: contestants with `cap` seeds, some of which fail."""
    cap = draw(st.integers(2, 5))
    contestants = draw(st.integers(1, 5))
    each = st.lists(st.one_of(values, st.none()) if draw(st.booleans()) else values, min_size=cap, max_size=cap)
    return cap, [(draw(each), draw(st.one_of(st.none(), values))) for _ in range(contestants)]


def run(cap, contestants, order):
    """The race to its end, its trainings done in an order of chance; (standing, trainings)."""
    known = {number: {} for number in range(len(contestants))}
    shuffled = random.Random(order)
    while True:
        entrants = [
            Entrant(
                number, number == 0,
                {s: None if (value := contestants[number][0][s]) is None else training(value) for s in known[number]},
                None if (searched := contestants[number][1]) is None else training(searched),
            )
            for number in reversed(known)
        ]  # fmt: skip
        standing = Race(entrants, cap, 1).standing()
        if standing.is_over:
            return standing, sum(map(len, known.values()))
        number, seed = shuffled.choice(standing.following)
        assert seed not in known[number]
        known[number][seed] = True


@given(finals(), st.integers(0, 3))
def test_a_race_ends_within_the_cap_with_one_of_those_who_never_failed(final, order):
    cap, contestants = final
    standing, trainings = run(cap, contestants, order)
    assert trainings <= cap * len(contestants)
    if standing.champion is None:
        assert all(None in each for each, _ in contestants)
    else:
        assert None not in contestants[standing.champion][0][: standing.seeds[standing.champion]]
        assert standing.champion not in {d.trial for d in standing.dropped if d.why != "alike"}


@given(finals())
def test_without_failures_the_order_of_arrival_decides_nothing(final):
    cap, contestants = final
    contestants = [([value or 0.0 for value in each], searched) for each, searched in contestants]
    assert len({repr(run(cap, contestants, order)) for order in range(3)}) == 1


# --- gaps ----------------------------------------------------------------------------------------------


def test_the_error_over_rows_is_that_of_a_paired_mean():
    """The jackknife's standard error against the formula that a mean has."""
    rng, shares = np.random.default_rng(0), []
    for _ in range(30):
        first, second = rng.normal(0.2, 1, (400, 1)), rng.normal(0, 1, (400, 1))
        found = gap(*([scores(rows, lambda r: float(r.mean()))] for rows in (first, second)), None)
        assert found.difference == pytest.approx(float((first - second).mean()))
        shares.append(found.row_variance / float((first - second).var(ddof=1) / 400))
    assert statistics.mean(shares) == pytest.approx(1, abs=0.1)


def test_seeds_are_compared_as_far_as_both_have_them():
    ones, zeros = ([training(value).choosing] * count for value, count in ((1.0, 3), (0.0, 2)))
    assert gap(ones, zeros, None).seeds == 2


def test_one_row_shows_nothing():
    found = gap(*([scores(np.array([[value]]), lambda r: float(r.mean()))] for value in (1.0, 0.0)), None)
    compared = found.comparison(1)
    assert (compared.difference, compared.p_value) == (1.0, 1.0)
    assert np.isfinite([compared.low, compared.high]).all()


def test_equal_contestants_are_equal_and_a_difference_without_error_is_one():
    same = Gap(0.0, 0.0, 39, 2, Spread(0.0, 3))
    assert (same.p_value(), same.comparison(9).p_value) == (1.0, 1.0)
    assert Gap(0.1, 0.0, 39, 2, Spread(0.0, 3)).p_value() == 2.0**-39
    assert same.chance_of_being_shown(3, 0.01) == 0.0


def test_seeds_are_not_spent_on_rows_that_are_too_few_to_show_anything():
    assert Gap(1.0, 0.01, 4, 1, Spread(0.01, 3)).chance_of_being_shown(3, 0.05) == 0.0  # five rows
    assert Gap(1.0, 0.01, 5, 1, Spread(0.01, 3)).chance_of_being_shown(3, 0.05) > 0.9


def test_an_interval_without_zero_is_beyond_noise_and_the_other_way_round():
    for difference in np.linspace(-0.2, 0.2, 41):
        compared = Gap(float(difference), 0.0004, 39, 2, Spread(0.01, 4)).comparison(9)
        assert compared.is_beyond_noise == (not compared.low <= 0 <= compared.high)


def test_what_is_left_to_move_shrinks_with_the_seeds():
    chances = [Gap(0.02, 0.0, 39, seeds, Spread(0.02, 6)).chance_of_falling_behind(3) for seeds in (1, 2, 3)]
    assert chances[0] > chances[1] > chances[2] == 0.0


# --- errors, simulated ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_errors_stay_below_the_stated_level(name):
    found = replayed(SETTINGS[name], FINALS)
    assert share([final.claims and final.truth <= 0 for final in found]) <= 0.05
    assert share([final.is_other for final in found]) <= 0.05
    assert statistics.mean(final.lost for final in found) < 0.003  # of the objective, against training all
    assert abs(statistics.mean(final.luck for final in found)) < 0.02


def test_a_clear_difference_is_claimed_for_half_of_the_trainings():
    found = replayed(SETTINGS["clear: one point is best"], FINALS)
    assert statistics.median(final.trainings / final.cap for final in found) <= 0.5
    assert share([final.claims for final in found]) > 0.98
