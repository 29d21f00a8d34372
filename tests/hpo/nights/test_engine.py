"""Nights under a simulated clock: none twice, none lost, each step once and in order, whatever kills and repeats."""

from __future__ import annotations

import datetime
import itertools
from dataclasses import replace

import pytest

from hpo.errors import ConfigError, Interrupted, Problem, SweepError
from hpo.nights import record as records_on_disk
from hpo.nights.alerts import regressions_of
from hpo.nights.lock import Held
from hpo.nights.night import Night
from hpo.nights.steps import AFTER, WORK, Outcome
from tests.hpo.builders import Killed
from tests.hpo.nights.nightly_world import FIRST, ORDER, World, one_o_clock

ONE_DAY = datetime.timedelta(days=1)
NIGHT = FIRST + 9 * ONE_DAY
SKIPPED = ["freeze", "look", "decide", *AFTER]
KILLS = [
    ("freeze", "before"), ("look", "after"), ("decide", "before"), ("sweep", "before"), ("sweep", "after"),
    ("certify", "after"), ("promote", "after"), ("keep", "before"), ("report", "after"), ("signal", "before"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch):
    """No machine is killed here, and files that replace others are written to the disk at once."""

    def write(path, text):
        path.unlink(missing_ok=True)
        path.write_text(text)

    monkeypatch.setattr(records_on_disk, "write_atomically", write)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def steps_of(record):
    return [step.name for step in record.steps]


def refused(world, moment):
    with pytest.raises(Held):
        world.call(moment)


def test_a_year_of_nights(tmp_path):
    world = World(tmp_path, keep={"nights": 5})  # so many records are not read every night
    dates = [FIRST + day * ONE_DAY for day in range(365)]
    missed = set(dates[20:120:10])
    doubled = set(dates[125:215:10]) | {datetime.date(2026, 10, 24)}  # the night in which clocks go back
    killed = dict(zip(dates[220:280:6], KILLS, strict=True))
    unchanged = set(dates[310:340])
    forsaken = set(list(killed)[::2])  # no second call comes in these nights
    world.rows = lambda date: str(dates[309] if date in unchanged else date)

    for date in dates:
        if date in missed:
            continue
        world.kill = killed.get(date)
        if date in killed:
            with pytest.raises(Killed):
                world.call(one_o_clock(date))
            if date not in forsaken:
                world.call(one_o_clock(date, minute=30))
            continue
        if date in doubled:
            world.during["sweep"] = lambda date=date: refused(world, one_o_clock(date, 2, 40))
        world.call(one_o_clock(date, 2, 30))  # a time that two nights of the year have twice or not at all
        world.during.clear()
        if date in doubled:
            assert world.call(one_o_clock(date, 2, 30, fold=1)) == []

    records = world.files.all()
    assert [record.date for record in records] == [date.isoformat() for date in dates]
    state = {record.night.date: record.state for record in records}
    without_result = {date for date in forsaken if ORDER.index(killed[date][0]) <= ORDER.index("sweep")}
    assert {date for date in dates if state[date] == "missed"} == missed | without_result
    assert {date for date in dates if state[date] == "skipped"} == unchanged
    assert {state[date] for date in set(dates) - missed - without_result - unchanged} == {"complete"}
    for night in records:
        wanted = {"complete": list(ORDER), "skipped": SKIPPED}.get(night.state)
        assert wanted is None or steps_of(night) == wanted, night.date
    cut_off = {(date, step) for date, (step, when) in killed.items() if when == "after"}
    assert {effect for effect in world.effects if world.effects.count(effect) > 1} == cut_off - {
        (date, step) for date, step in cut_off if date in without_result and step not in AFTER
    }
    in_order = [(date, ORDER.index(step)) for date, step in dict.fromkeys(world.effects)]
    assert in_order == sorted(in_order)
    assert [date for date, _ in world.signals] == dates


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ORDER)
def test_a_night_killed_at_any_step_continues_there(world, step, when):
    world.kill = (step, when)
    with pytest.raises(Killed):
        world.call(one_o_clock(NIGHT))
    assert not world.signals or (step, when) == ("signal", "after")
    (ran,) = world.call(one_o_clock(NIGHT, 3))
    assert (ran.record.state, ran.failure, steps_of(ran.record)) == ("complete", None, list(ORDER))
    assert ran.record.began.startswith("2026-01-11T01:00")
    again = [name for name in ORDER if world.effects.count((NIGHT, name)) > 1]
    assert again == ([step] if when == "after" else [])
    assert world.call(one_o_clock(NIGHT, 5)) == []


def test_a_failed_night_says_so_and_is_tried_again_from_the_step_that_failed(world):
    def fails():
        raise SweepError("the disk is full")

    world.during["certify"] = fails
    (ran,) = world.call(one_o_clock(NIGHT))
    assert (ran.record.state, ran.record.reason) == ("failed", "certify: the disk is full")
    assert (ran.failure.exit_code, world.signals) == (1, [(NIGHT, "failed")])
    (ran,) = world.call(one_o_clock(NIGHT, 2))  # nobody is woken twice by the same news
    assert (ran.failure.exit_code, world.signals) == (1, [(NIGHT, "failed")])
    del world.during["certify"]
    (ran,) = world.call(one_o_clock(NIGHT, 3))
    assert (ran.record.state, steps_of(ran.record)) == ("complete", list(ORDER))
    assert world.signals == [(NIGHT, "failed"), (NIGHT, "complete")]
    assert world.effects.count((NIGHT, "sweep")) == 1
    world.during["freeze"] = fails
    world.call(one_o_clock(NIGHT + ONE_DAY))
    del world.during["freeze"]
    world.call(one_o_clock(NIGHT + 2 * ONE_DAY))  # a failed night of another date has ended
    assert [record.state for record in world.files.all()] == ["complete", "failed", "complete"]


def test_rows_that_stop_a_night_are_read_again_by_the_next_call(world):
    stopped = Outcome("no row has the label good", {"stops": "no row has the label good"}, "failed")
    world.outcomes["look"] = stopped
    (ran,) = world.call(one_o_clock(NIGHT))
    assert (ran.record.state, ran.record.reason, ran.failure.exit_code) == ("failed", stopped.said, 1)
    assert steps_of(ran.record) == ["freeze", "look", *AFTER]
    world.outcomes.clear()
    (ran,) = world.call(one_o_clock(NIGHT, 2))
    assert (ran.record.state, steps_of(ran.record)) == ("complete", list(ORDER))
    assert world.effects.count((NIGHT, "freeze")) == 2


def test_every_kind_of_failure_has_its_exit_code_and_an_unexpected_one_its_traceback(world):
    errors = [
        (ConfigError([Problem("a.yaml:3: data", "no rows")]), 2, "look: 1 problem\n  a.yaml:3: data: no rows"),
        (OSError(28, "No space left on device"), 1, "look: [Errno 28] No space left on device"),
        (ZeroDivisionError("a bug"), 1, "look: unexpected ZeroDivisionError: a bug (see "),
    ]
    for hour, (error, code, reason) in enumerate(errors):
        world.during["look"] = lambda error=error: (_ for _ in ()).throw(error)
        (ran,) = world.call(one_o_clock(NIGHT, hour))
        assert (ran.record.state, ran.failure.exit_code) == ("failed", code)
        assert ran.record.reason.startswith(reason)
    assert "nightly_world.py" in world.files.failure(Night("movies", NIGHT)).read_text()


def test_an_interruption_fails_no_night(world):
    def stops():
        raise Interrupted("interrupted; the same command continues")

    world.during["sweep"] = stops
    with pytest.raises(Interrupted):
        world.call(one_o_clock(NIGHT))
    del world.during["sweep"]
    assert world.record(NIGHT).state == "running"
    (ran,) = world.call(one_o_clock(NIGHT, 2))
    assert ran.record.state == "complete"


def test_a_report_that_fails_keeps_no_signal_back_and_no_model(world):
    def fails():
        raise SweepError("no such template")

    world.during["report"] = fails
    (ran,) = world.call(one_o_clock(NIGHT))
    assert (ran.record.state, ran.failure.exit_code) == ("complete", 1)
    assert ran.record.step("report").said == "failed: report: no such template"
    assert world.signals == [(NIGHT, "complete")]


def test_a_night_that_was_given_up_is_reported_too(world):
    world.kill = ("sweep", "before")
    with pytest.raises(Killed):
        world.call(one_o_clock(NIGHT))
    closed, tonight = world.call(one_o_clock(NIGHT + ONE_DAY))
    assert closed.record.reason == "it was cut short without a result, and a later night has begun"
    assert steps_of(closed.record) == ["freeze", "look", "decide", *AFTER]
    assert (tonight.record.state, steps_of(tonight.record)) == ("complete", [*WORK, *AFTER])
    assert world.signals == [(NIGHT, "missed"), (NIGHT + ONE_DAY, "complete")]


def test_a_file_that_is_wrong_leaves_a_night_with_a_result_as_it_is(world):
    wrong, hour = ConfigError([Problem("movies.yaml:3", "is wrong", "what is right")]), itertools.count(1)

    def refused():
        return world.call(one_o_clock(NIGHT, next(hour)), wrong=wrong)

    world.kill = ("sweep", "before")
    with pytest.raises(Killed):
        world.call(one_o_clock(NIGHT, next(hour)))
    world.kill = ("signal", "before")
    with pytest.raises(Killed):
        refused()
    (ran,) = refused()  # a kill kept the first one from being heard
    assert (ran.record.state, ran.failure.exit_code, world.signals) == ("failed", 2, [(NIGHT, "failed")])
    assert refused() == []
    world.kill = ("certify", "before")
    with pytest.raises(Killed):
        world.call(one_o_clock(NIGHT, next(hour)))
    assert (refused(), world.record(NIGHT).state) == ([], "running")
    later = one_o_clock(NIGHT + ONE_DAY)
    first, second = world.call(later)
    assert (first.record.state, second.record.state) == ("complete", "complete")
    assert world.call(later, wrong=wrong) == []


def test_a_gap_is_told_once_also_after_a_kill(world):
    world.call(one_o_clock(NIGHT))
    world.kill = ("report", "before")
    with pytest.raises(Killed):
        world.call(one_o_clock(NIGHT + 31 * ONE_DAY))
    world.kill = ("signal", "before")
    with pytest.raises(Killed):
        world.call(one_o_clock(NIGHT + 31 * ONE_DAY, 2))
    last = NIGHT + 30 * ONE_DAY
    assert steps_of(world.record(last)) == ["report"]
    world.call(one_o_clock(NIGHT + 31 * ONE_DAY, 3))
    assert world.signals == [(NIGHT, "complete"), (last, "missed"), (NIGHT + 31 * ONE_DAY, "complete")]
    assert [record.state for record in world.files.all()] == ["complete", *["missed"] * 30, "complete"]
    assert world.record(last).reason.startswith("no call began this night")


def test_signals_that_fail_are_tried_again_and_what_waits_also_where_nothing_is_due(world):
    def fails():
        raise SweepError("the outbox cannot be written")

    world.during["signal"] = fails
    (ran,) = world.call(one_o_clock(NIGHT))
    assert (ran.record.state, ran.failure.exit_code, steps_of(ran.record)) == ("complete", 1, [*WORK, "report"])
    del world.during["signal"]
    (ran,) = world.call(one_o_clock(NIGHT, 2))
    assert (ran.failure, world.signals, world.idle_calls) == (None, [(NIGHT, "complete")], 0)
    assert world.call(one_o_clock(NIGHT, 3)) == []
    assert world.idle_calls == 1


def test_a_disk_that_runs_full_silences_no_signal_and_the_next_call_continues(world, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        world.during["sweep"] = lambda: disk.setattr(records_on_disk, "write_atomically", full)
        (ran,) = world.call(one_o_clock(NIGHT))
    assert (world.signals, ran.failure.exit_code) == ([(NIGHT, "failed")], 1)
    assert "cannot be written: [Errno 28] No space left" in ran.record.reason
    world.during.clear()
    (ran,) = world.call(one_o_clock(NIGHT, 2))
    assert (ran.record.state, steps_of(ran.record)) == ("complete", list(ORDER))


def test_a_disk_that_is_full_before_a_night_begins_is_told_too(world, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device")

    world.call(one_o_clock(NIGHT))
    with monkeypatch.context() as disk:
        disk.setattr(records_on_disk, "write_atomically", full)
        *missed, ran = world.call(one_o_clock(NIGHT + 3 * ONE_DAY))
    assert [one.record.state for one in missed] == ["missed", "missed"]
    assert (ran.record.state, ran.failure.exit_code) == ("failed", 1)
    assert world.signals[1:] == [(NIGHT + 2 * ONE_DAY, "missed"), (NIGHT + 3 * ONE_DAY, "failed")]
    *_, ran = world.call(one_o_clock(NIGHT + 3 * ONE_DAY, 2))
    assert (ran.record.state, steps_of(ran.record)) == ("complete", list(ORDER))


def test_unchanged_nights_are_skipped_until_something_changes_or_a_person_insists(world):
    world.rows = lambda date: "the same"
    states = [world.call(one_o_clock(NIGHT + day * ONE_DAY))[0].record.state for day in range(3)]
    assert states == ["complete", "skipped", "skipped"]
    assert world.call(one_o_clock(NIGHT + 2 * ONE_DAY, 2)) == []
    (ran,) = world.call(one_o_clock(NIGHT + 2 * ONE_DAY, 3), always=True)  # a person insists
    assert (ran.record.state, steps_of(ran.record)) == ("complete", list(ORDER))
    assert "--always is given" in ran.record.step("decide").said
    assert world.call(one_o_clock(NIGHT + 2 * ONE_DAY, 4), always=True) == []
    (ran,) = world.call(one_o_clock(NIGHT + 3 * ONE_DAY), always=True)
    assert ran.record.state == "complete"
    # No result depends on how nights are run.
    world.config = replace(world.config, nightly=replace(world.config.nightly, warm_start=3))
    (ran,) = world.call(one_o_clock(NIGHT + 4 * ONE_DAY))
    assert ran.record.reason == "nothing has changed since the night 2026-01-13 of 'movies'"
    (world.home.dir.parent / "model" / "config.json").write_text('{"another": 1}')
    (ran,) = world.call(one_o_clock(NIGHT + 5 * ONE_DAY))
    assert "the base model" in ran.record.step("decide").said
    assert regressions_of(ran.record) == []


def test_a_night_that_failed_in_its_sweep_begins_again_where_a_person_has_corrected_what_it_froze(world):
    def fails():
        raise SweepError("no trial succeeded")

    world.during["sweep"] = fails
    world.call(one_o_clock(NIGHT))
    world.call(one_o_clock(NIGHT, 2))
    assert world.effects.count((NIGHT, "freeze")) == 1
    world.is_outdated = True
    del world.during["sweep"]
    world.during["certify"] = fails
    (ran,) = world.call(one_o_clock(NIGHT, 3))
    assert "the night 2026-01-10 of 'movies': begins again, with the file and the rows as they are now" in world.said
    assert (world.effects.count((NIGHT, "freeze")), steps_of(ran.record)[-3:]) == (2, ["sweep", *AFTER])
    world.call(one_o_clock(NIGHT, 4))  # it has a result: that is brought to its end
    assert world.effects.count((NIGHT, "freeze")) == 2


def test_nobody_hears_of_a_beginning_whose_end_is_no_news(world):
    world.during["sweep"] = lambda: (_ for _ in ()).throw(SweepError("the disk is full"))
    for hour in (1, 2, 3):
        world.call(one_o_clock(NIGHT, hour))
    assert (world.starts, world.signals) == ([NIGHT], [(NIGHT, "failed")])


def test_nights_that_a_clock_that_was_ahead_called_missed_are_run(world):
    world.call(one_o_clock(NIGHT))
    world.call(one_o_clock(NIGHT + 3 * ONE_DAY))
    assert world.record(NIGHT + ONE_DAY).state == "missed"
    (ran,) = world.call(one_o_clock(NIGHT + ONE_DAY))
    assert (ran.record.state, steps_of(ran.record)) == ("complete", list(ORDER))
    assert world.starts == [NIGHT, NIGHT + 3 * ONE_DAY, NIGHT + ONE_DAY]


def test_a_damaged_record_fails_the_night_and_is_told_once_until_it_is_moved_away(world):
    world.call(one_o_clock(NIGHT))
    damaged, later = world.files.record(Night("movies", NIGHT)), NIGHT + ONE_DAY
    damaged.write_text("{")
    (ran,) = world.call(one_o_clock(later))
    assert (ran.record.state, ran.failure.exit_code) == ("failed", 1)
    assert world.signals == [(NIGHT, "complete"), (later, "failed")]
    assert ran.record.reason.startswith(f"{damaged} cannot be read: ")
    assert "move the file away" in ran.record.reason
    with pytest.raises(SweepError, match="cannot be read"):
        world.call(one_o_clock(later, 2))
    assert len(world.signals) == 2
    damaged.unlink()
    (ran,) = world.call(one_o_clock(later, 3))
    assert (ran.record.state, steps_of(ran.record)) == ("complete", list(ORDER))


def test_a_damaged_record_of_tonight_is_notified_and_the_file_stays_as_it_is(world):
    world.kill = ("certify", "before")
    with pytest.raises(Killed):
        world.call(one_o_clock(NIGHT))
    own = world.files.record(Night("movies", NIGHT))
    own.write_text(cut := own.read_text()[:99])
    for wrong in (None, ConfigError([Problem("movies.yaml:3", "is wrong", "what is right")])):
        (ran,) = world.call(one_o_clock(NIGHT, 2), wrong=wrong)
        assert (ran.record.state, own.read_text()) == ("failed", cut)
        assert ran.failure.reason.startswith(f"{own} cannot be read: ")
    assert world.signals == [(NIGHT, "failed")] * 2  # of which the outbox sends one
    own.unlink()
    (ran,) = world.call(one_o_clock(NIGHT, 3))
    assert (ran.record.state, steps_of(ran.record)) == ("complete", list(ORDER))
