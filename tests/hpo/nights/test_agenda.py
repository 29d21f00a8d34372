"""Which nights are due: missed ones by the file's choice, cut-short ones continued or closed, in their order."""

import datetime
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from hpo.errors import UsageError
from hpo.nights.agenda import agenda
from hpo.nights.night import Night
from hpo.nights.record import NightRecord, Step
from hpo.nights.zone import session_end, window_end, zone_named

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime.time(12)
NEW = NightRecord("movies", "2026-05-01", "Europe/Berlin", "movies.yaml", began="2026-05-02T01:00:00+02:00")


def with_steps(record, *names):
    return replace(record, steps=[Step(name, "", "", "") for name in names])


DONE = with_steps(replace(NEW, state="complete"), "sweep", "signal")
CUT_SHORT = with_steps(NEW, "freeze")
WITH_RESULT = with_steps(NEW, "freeze", "sweep")
UNSAID = with_steps(replace(NEW, state="failed"), "freeze")
FAILED = with_steps(UNSAID, "freeze", "signal")
MISSED = replace(NEW, state="missed", began="")


def on(record, day):
    return replace(record, date=f"2026-05-{day:02}")


def due(records, missed="latest", hour=1, tonight=5):
    """What is due in the morning after May 5, as `DAY what`."""
    night = Night("movies", datetime.date(2026, 5, tonight))
    now = datetime.datetime(2026, 5, tonight + 1, hour, tzinfo=BERLIN)
    found = agenda(records, night, missed, lambda night: window_end(night, "06:00", NOON, BERLIN), now)
    return [f"{one.night.date.day} {one.what}" for one in found]


@pytest.mark.parametrize(
    ("records", "latest", "every", "skip"),
    [
        ([], ["5 run"], ["5 run"], ["5 run"]),
        ([on(DONE, 4)], ["5 run"], ["5 run"], ["5 run"]),
        ([on(DONE, 4), on(DONE, 5)], [], [], []),
        ([on(DONE, 2)], ["3 close", "4 close", "5 run"], ["3 run", "4 run", "5 run"], ["3 close", "4 close", "5 run"]),
        ([on(DONE, 1), on(DONE, 3), on(MISSED, 4)], ["2 close", "5 run"], ["2 close", "5 run"], ["2 close", "5 run"]),
        ([on(CUT_SHORT, 4)], ["4 close", "5 run"], ["4 run", "5 run"], ["4 close", "5 run"]),
        ([on(WITH_RESULT, 4)], ["4 run", "5 run"], ["4 run", "5 run"], ["4 run", "5 run"]),
        ([on(UNSAID, 4)], ["4 finish", "5 run"], ["4 finish", "5 run"], ["4 finish", "5 run"]),
        ([on(FAILED, 4)], ["5 run"], ["5 run"], ["5 run"]),
        ([on(FAILED, 5)], ["5 run"], ["5 run"], ["5 run"]),
        ([on(DONE, 5), on(DONE, 9)], [], [], []),  # the clock was wrong once
        ([on(MISSED, 5), on(DONE, 9)], ["5 run"], ["5 run"], ["5 run"]),
    ],
)
def test_what_is_due(records, latest, every, skip):
    assert (due(records), due(records, "all"), due(records, "skip")) == (latest, every, skip)


@pytest.mark.parametrize(
    ("records", "late", "skip"),
    [
        ([], ["5 run"], ["5 close"]),
        ([on(CUT_SHORT, 5)], ["5 run"], ["5 close"]),
        ([on(WITH_RESULT, 5)], ["5 run"], ["5 run"]),
        ([on(FAILED, 5)], ["5 run"], []),
        ([on(UNSAID, 5)], ["5 run"], ["5 finish"]),
        ([on(MISSED, 5)], ["5 run"], []),
    ],
)
def test_what_is_due_after_the_window(records, late, skip):
    assert (due(records, hour=9), due(records, "skip", hour=9)) == (late, skip)


def test_the_last_night_of_a_gap_speaks_for_all_of_it():
    night = Night("movies", datetime.date(2026, 5, 9))
    now = datetime.datetime(2026, 5, 10, 1, tzinfo=BERLIN)
    found = agenda([on(DONE, 1), on(DONE, 5), on(DONE, 7)], night, "latest", lambda night: now, now)
    assert [(due.night.date.day, due.is_reported, due.why) for due in found] == [
        (2, False, "no call began this night"), (3, False, "no call began this night"),
        (4, True, "no call began this night, nor the 2 before it"), (6, True, "no call began this night"),
        (8, True, "no call began this night"), (9, True, ""),
    ]  # fmt: skip


def test_a_clock_that_was_years_off_fills_no_disk():
    assert len(due([replace(DONE, date="2003-01-01")])) == 367


@pytest.mark.parametrize(
    ("now", "until", "end"),
    [
        ("2026-05-06T01:00+02:00", "06:00", "2026-05-06T06:00+02:00"),
        ("2026-05-06T09:00+02:00", "06:00", "2026-05-06T12:00+02:00"),  # late: where the next night begins
        ("2026-05-06T14:00+02:00", "06:00", "2026-05-07T06:00+02:00"),
        ("2026-05-06T09:00+02:00", None, "2026-05-06T12:00+02:00"),
        ("2026-10-25T01:30+02:00", "02:30", "2026-10-25T02:30+02:00"),  # the first of the two
        ("2026-10-25T02:30+02:00", "02:30", "2026-10-25T02:30+01:00"),
        ("2026-03-29T01:30+01:00", "02:30", "2026-03-29T03:30+02:00"),  # no clock shows 02:30
        ("2026-03-29T00:30+01:00", "02:30", "2026-03-29T03:30+02:00"),
    ],
)
def test_work_ends_with_the_window_or_where_the_next_night_begins(now, until, end):
    found = session_end(datetime.datetime.fromisoformat(now), until, NOON, BERLIN)
    assert found == datetime.datetime.fromisoformat(end)


def test_the_zone_is_the_one_that_is_named_or_the_machine_s(tmp_path):
    local, database = tmp_path / "localtime", tmp_path / "zoneinfo" / "Asia" / "Tokyo"
    assert zone_named("Asia/Tokyo", {"TZ": "Europe/Berlin"}).key == "Asia/Tokyo"
    assert zone_named(None, {"TZ": ":Europe/Berlin"}).key == "Europe/Berlin"
    assert zone_named(None, {}, local).key == "UTC"
    database.parent.mkdir(parents=True)
    database.touch()
    local.symlink_to(database)
    assert zone_named(None, {}, local).key == "Asia/Tokyo"
    assert zone_named(None, {"TZ": f":{local}"}).key == "Asia/Tokyo"
    (tmp_path / "copy").touch()  # cut short
    for given in (({}, tmp_path / "copy"), ({"TZ": f"{tmp_path}/copy"}, local)):
        with pytest.raises(UsageError, match=r"copy is not the file of a time zone: .*; give --tz"):
            zone_named(None, *given)
    with pytest.raises(UsageError, match=r"--tz 'Europe/Berln': expected the name .* did you mean 'Europe/Berlin'"):
        zone_named("Europe/Berln")
    with pytest.raises(UsageError, match=r"TZ '../etc/passwd': expected .*; known: Africa/Abidjan, Africa/Accra, "):
        zone_named(None, {"TZ": "../etc/passwd"})
