"""The estimate of a sweep's end, on sweeps that were recorded as they ran, and where it can be reckoned by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from hpo.results.time_left import NOTHING, Ahead, TimeLeft, UnderWay
from hpo.terminal import TerminalView
from tests.hpo.builders import trial_result
from tests.hpo.replayed_sweep import errors

RECORDED = json.loads(Path(__file__).with_name("recorded_sweeps.json").read_text())
"""The races of the last two are made of one recorded sweep, which trained three seeds of each finalist: in the order in
which a race takes them, and as long as it might."""
WITHIN = 0.2


@pytest.mark.parametrize("sweep", RECORDED[:-1], ids=lambda sweep: sweep["name"])
def test_after_the_first_third_the_end_is_right_within_a_fifth(sweep):
    assert max(errors(sweep)) <= WITHIN


def test_after_the_first_look_the_end_of_a_usual_race_is_known():
    """Whom the look dropped is not counted any more: two trainings are to come, not three."""
    assert max(errors(RECORDED[-2], 0.75)) <= 0.03


def test_a_race_that_asks_for_every_seed_is_longer_than_said_until_it_does():
    """Nobody can know how long a race will be: what is said is what races take in the median."""
    assert max(errors(RECORDED[-1])) > WITHIN
    assert max(errors(RECORDED[-1], 0.73)) <= 0.03


def test_what_an_earlier_session_did_counts_as_the_time_that_it_took():
    """A resumed training, and two whose results are there already: each takes 100 seconds in all."""
    now = [1000.0]
    view = TerminalView(Console(file=io.StringIO()), clock=lambda: now[0])
    view.begin(6, 1, "f1", 1)
    view.trial_started(1, {})
    now[0] += 5
    view.step(1, 0.6, None, seconds=60.0)
    assert view.seconds_left() == pytest.approx(40 + 4 * 100)
    now[0] += 40
    view.trial_finished(1, trial_result(seconds=100.0), 2, is_best=False)
    assert view.seconds_left() == pytest.approx(4 * 100)
    for number in (2, 3):
        view.trial_started(number, {})
        view.trial_finished(number, trial_result(seconds=100.0), number + 1, is_best=False)
    assert view.seconds_left() == pytest.approx(2 * 100)


# --- by hand -------------------------------------------------------------------------------------------


def test_without_a_pace_nothing_is_said():
    left = TimeLeft(2)
    assert left.in_search(8, [UnderWay(10, 0.1), UnderWay(10, 0.1)]) is None
    assert left.in_search(8, [UnderWay(10, 0.2), UnderWay(10, 0.1)]) is not None
    assert left.in_repeats([]) is None


@pytest.mark.parametrize(
    ("jobs", "ahead", "waiting", "running", "seconds"),
    [
        (1, NOTHING, 0, [], 0),
        (1, NOTHING, 3, [UnderWay(5, 0.5)], 35),
        (2, NOTHING, 3, [UnderWay(5, 0.5), UnderWay(0, 0.0)], 25),
        (2, NOTHING, 101, [], 510),
        (1, NOTHING, 0, [UnderWay(5, 0.5), UnderWay(5, 0.25)], 15),  # two trials in one process
        (2, Ahead(3, 3), 0, [], 20),  # one seed of three, in two rounds
        (2, Ahead(3, 9, 7.0), 0, [], 67),
        (4, Ahead(0, 0, 7.0), 4, [], 17),
    ],
)
def test_trainings_of_ten_seconds_each(jobs, ahead, waiting, running, seconds):
    left = TimeLeft(jobs, ahead)
    left.ended(10.0, is_complete=True)
    assert left.in_search(waiting, running) == pytest.approx(seconds)


def test_pruned_trials_shorten_those_to_come_but_no_repeat():
    left = TimeLeft(1, Ahead(2, 3))
    left.ended(10.0, is_complete=True)
    left.ended(2.0, is_complete=False)
    assert left.in_search(5, []) == pytest.approx(5 * 6 + 2 * 10)
    assert left.in_search(0, [UnderWay(2, 0.2)]) == pytest.approx(8 / 2 + 2 * 10)


def test_a_budget_ends_the_search_and_nothing_after_it():
    left = TimeLeft(1, Ahead(2, 3, 7.0))
    left.ended(10.0, is_complete=True)
    assert left.in_search(1000, [], most_s=25.0) == pytest.approx(25 + 20 + 7)
    assert left.in_search(1000, [], most_s=-1.0) == pytest.approx(20 + 7)


def test_repeats_are_a_seed_after_the_other():
    left = TimeLeft(2, Ahead(3, 6, 7.0))
    left.ended(10.0, is_complete=True)
    left.begin_race(3, 6)
    assert left.in_repeats([]) == pytest.approx(2 * 20 + 7)
    left.ended(10.0, is_complete=True)
    assert left.in_repeats([UnderWay(5, 0.5)]) == pytest.approx(10 + 20 + 7)
    left.race_stands(1, 3, 1)
    assert left.in_repeats([UnderWay(5, 0.5)]) == pytest.approx(5 + 20 + 7)
    left.race_stands(3, 3, 1)
    assert left.in_repeats([UnderWay(5, 0.5)]) == pytest.approx(5 + 7)  # further than races go in the median


def test_whom_a_look_dropped_is_not_counted():
    left = TimeLeft(1, Ahead(4, 6, 7.0))
    left.ended(10.0, is_complete=True)
    left.begin_race(4, 6)
    assert left.race_stands(2, 2, 2) == 10
    assert left.in_repeats([]) == pytest.approx(20 + 7)
