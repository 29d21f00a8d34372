"""Who wins: the best trial that keeps the constraints, in the metric's own direction, or whom the repeats confirmed."""

from __future__ import annotations

import dataclasses

import pytest

from hpo.config.objective import Objective
from hpo.results.champion import choose_champion, front, is_feasible, ranked
from hpo.results.outcome import Contestant, FinalistsOutcome, Repeat
from tests.hpo.builders import trial_record

UP, DOWN = Objective("f1_macro", "maximize"), Objective("f1_macro", "minimize")
SECONDS = Objective("seconds", "minimize")


def champion(records, objective=UP, constraints=None, finalists=None):
    return choose_champion(records, objective, constraints or {}, finalists)


# --- of the search -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("objective", "number"), [(UP, 2), (DOWN, 1)])
def test_the_champion_is_the_best_complete_trial(objective, number):
    records = [trial_record(0, value=0.5), trial_record(1, value=0.4), trial_record(2, value=0.6)]
    assert champion(records, objective).number == number


def test_the_champion_names_its_run_its_point_and_its_metrics():
    won = champion([trial_record(3, value=0.5, params={"lora_r": 8}, run_id="run")])
    assert (won.number, won.value, won.metrics, won.params, won.run_id, won.repeat) == (
        3, 0.5, {"f1_macro": 0.5}, {"lora_r": 8}, "run", None,
    )  # fmt: skip


def test_a_pruned_trial_is_never_champion():
    assert champion([trial_record(0, value=0.5), trial_record(1, "pruned", 0.9)]).number == 0


def test_without_a_complete_trial_there_is_no_champion():
    records = [trial_record(0, "failed", None), trial_record(1, "pruned"), trial_record(2, "running")]
    assert champion(records) is None


def test_nan_is_champion_only_when_alone():
    assert champion([trial_record(0, value=float("nan")), trial_record(1, value=0.1)]).number == 1


def test_of_equal_values_the_first_trial_wins():
    assert champion([trial_record(2), trial_record(0), trial_record(1)]).number == 0


def test_a_trial_that_reuses_another_one_s_result_is_not_ranked_but_one_taken_over_is():
    records = [
        trial_record(0, value=0.5), trial_record(1, value=0.9, reused_from="other/4"),
        trial_record(2, value=0.9, reused_from="1"),
    ]  # fmt: skip
    assert [r.number for r in ranked(records, UP, {})] == [1, 0]


# --- constraints ---------------------------------------------------------------------------------------


def test_a_trial_beyond_a_constraint_is_no_champion():
    records = [trial_record(0, value=0.5, seconds=9.0), trial_record(1, value=0.9, seconds=11.0)]
    assert champion(records, constraints={"seconds": 10.0}).number == 0
    assert champion(records, constraints={"seconds": 8.0}) is None
    assert champion(records, constraints={"seconds": 11.0}).number == 1


def test_a_constraint_that_is_just_kept_is_kept():
    assert is_feasible(trial_record(0, seconds=10.0), {"seconds": 10.0})
    assert not is_feasible(trial_record(0, seconds=10.0), {"seconds": 9.9, "adapter_mb": 1.0})
    assert not is_feasible(trial_record(0, "running"), {})


# --- several objectives --------------------------------------------------------------------------------


def test_the_front_are_those_that_no_other_beats_in_everything():
    records = [
        trial_record(0, value=0.5, seconds=5.0),
        trial_record(1, value=0.9, seconds=9.0),
        trial_record(2, value=0.4, seconds=6.0),  # beaten by 0 in both
        trial_record(3, value=0.9, seconds=8.0),  # as good as 1, and quicker
        trial_record(4, "pruned", 0.99, seconds=1.0),
        trial_record(5, value=0.99, seconds=1.0, reused_from="1"),
    ]
    assert front(records, [UP, SECONDS], {}) == [0, 3]
    assert front(records, [DOWN, SECONDS], {}) == [0, 2]
    assert front(records, [UP, SECONDS], {"seconds": 7.0}) == [0]
    assert front([], [UP, SECONDS], {}) == []


def test_equal_trials_are_both_on_the_front():
    assert front([trial_record(0), trial_record(1)], [UP, SECONDS], {}) == [0, 1]


# --- of the finalists ----------------------------------------------------------------------------------


def contestant(trial, *values, metric="f1_macro"):
    repeats = [
        Repeat(i, value, {} if value is None else {metric: value}, f"{trial}-{i}", None, 1.0)
        for i, value in enumerate(values)
    ]
    return Contestant(trial, {"lora_r": trial}, repeats, is_baseline=False)


@pytest.mark.parametrize(("objective", "repeat", "value"), [(UP, 1, 0.9), (DOWN, 0, 0.5)])
def test_of_the_confirmed_point_the_best_repeat_is_released(objective, repeat, value):
    finalists = FinalistsOutcome("x", [contestant(2, 0.95), contestant(4, 0.5, 0.9, 0.7)], champion=4)
    won = champion([trial_record(2, value=0.99)], objective, finalists=finalists)
    assert (won.number, won.repeat, won.value) == (4, repeat, value)
    assert (won.run_id, won.params, won.metrics) == (f"4-{repeat}", {"lora_r": 4}, {"f1_macro": value})


def test_a_training_is_chosen_by_the_rows_that_choose_where_others_certify():
    found = contestant(4, 0.5, 0.9, 0.7)
    repeats = [dataclasses.replace(r, choosing=by) for r, by in zip(found.repeats, (0.4, 0.6, 0.8), strict=True)]
    finalists = FinalistsOutcome("x", [dataclasses.replace(found, repeats=repeats)], champion=4)
    won = champion([trial_record(4)], UP, finalists=finalists)
    assert (won.repeat, won.value, won.run_id) == (2, 0.7, "4-2")


def test_when_every_finalist_failed_there_is_no_champion():
    finalists = FinalistsOutcome("x", [contestant(2, None)], champion=None)
    assert champion([trial_record(2, value=0.99)], finalists=finalists) is None
