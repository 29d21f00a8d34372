"""Which adapters of a finished sweep something needs."""

from __future__ import annotations

import pytest

from hpo.results.needed import needed_trainings, trained_in
from hpo.results.records import StudySnapshot
from hpo.results.released import Release
from hpo.results.state import SweepState
from tests.hpo.builders import trial_record

RECORDS = [trial_record(number, value=value) for number, value in enumerate((0.9, 0.5, 0.6, 0.7))]


def needed(records=RECORDS, left_out=(), closed=(), **state):
    config = {"constraints": {}, "objective": [{"metric": "f1_macro", "direction": "maximize"}]}
    view = StudySnapshot("s", SweepState(state="complete", config=config, **state), records)
    return {number for _, number in needed_trainings([view], {"s": left_out}, closed)}


def released(trial):
    return Release("shared", "1", "models:/shared@champion", "fp32", trial, f"run{trial}")


@pytest.mark.parametrize(
    ("state", "numbers"),
    [
        ({}, {0}),
        ({"chosen_trial": 1}, {0, 1}),
        ({"release": released(2)}, {0, 2}),
        ({"challenger": released(3)}, {0, 3}),
    ],
    ids=str,
)  # fmt: skip
def test_the_champion_and_what_was_released_or_chosen_are_needed(state, numbers):
    assert needed(**state) == numbers


def test_a_released_trial_that_an_edit_left_out_is_needed():
    left_out = [trial_record(number, value=0.1) for number in (1, 2, 3)]
    assert needed(RECORDS[:1], left_out, release=released(2), challenger=released(3)) == {0, 2, 3}


def test_a_trial_that_the_budget_interrupted_is_needed_unless_its_sweep_is_never_continued():
    records = [*RECORDS, trial_record(4, "running")]
    assert needed(records) == {0, 4}
    assert needed(records, closed=["s"]) == {0}


def test_an_equal_trial_was_trained_where_its_twin_was():
    twin, taken = trial_record(1), trial_record(2, reused_from="other/7")
    records = [twin, taken, trial_record(3, reused_from="1"), trial_record(4, reused_from="2")]
    assert [trained_in("s", record, records) for record in records] == [("s", 1), ("other", 7), ("s", 1), ("other", 7)]
    assert needed([trial_record(0, value=0.9), *records], chosen_trial=3) == {0, 1}
