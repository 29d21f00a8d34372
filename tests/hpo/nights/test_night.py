"""A night's date, over changes of the clock; its record, written and read."""

import dataclasses
import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.errors import SweepError
from hpo.nights.night import Night, night_at, night_of, nights_between
from hpo.nights.record import NightFiles, NightRecord, Step

BERLIN = ZoneInfo("Europe/Berlin")
UTC = datetime.UTC


def at(text):
    return datetime.datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("moment", "date"),
    [
        ("2026-11-28T23:30+01:00", "2026-11-28"),
        ("2026-11-29T00:10+01:00", "2026-11-28"),
        ("2026-11-29T11:59+01:00", "2026-11-28"),
        ("2026-11-29T12:00+01:00", "2026-11-29"),
        ("2026-11-29T11:30+00:00", "2026-11-29"),  # 12:30 in Berlin
        ("2026-10-25T00:30+00:00", "2026-10-24"),  # 02:30, the first time
        ("2026-10-25T01:30+00:00", "2026-10-24"),  # 02:30, the second time: the same night
        ("2026-03-29T01:30+00:00", "2026-03-28"),  # 03:30; there was no 02:30
    ],
)
def test_a_moment_belongs_to_the_night_of_its_local_date(moment, date):
    assert night_at("movies", at(moment), BERLIN) == Night("movies", datetime.date.fromisoformat(date))


@given(st.datetimes(datetime.datetime(2020, 1, 1), datetime.datetime(2030, 1, 1)), st.integers(0, 23))
def test_a_later_moment_is_never_of_an_earlier_night_and_a_day_later_is_the_next_one(moment, hour):
    first = night_at("movies", moment.replace(tzinfo=UTC), UTC, datetime.time(hour))
    next_one = night_at("movies", (moment + datetime.timedelta(days=1)).replace(tzinfo=UTC), UTC, datetime.time(hour))
    assert (next_one.date - first.date).days == 1
    assert nights_between(first, next_one) == []


def test_a_moment_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="no time zone"):
        night_at("movies", datetime.datetime(2026, 1, 1), BERLIN)  # what is refused


def test_nights_between_two_are_those_that_nobody_began():
    first, last = (Night("movies", datetime.date(2026, 2, day)) for day in (26, 28))
    assert [night.sweep for night in nights_between(first, last)] == ["movies-2026-02-27"]


def test_the_night_of_a_sweep_is_in_its_name():
    night = Night("movies-2025-01-01", datetime.date(2026, 2, 27))
    assert night_of(night.sweep) == night
    assert [night_of(sweep) for sweep in ("movies", "movies-2026-02-30", "movies_2026-02-27")] == [None] * 3


def test_a_record_is_read_as_it_was_written_and_a_damaged_one_is_named(tmp_path):
    files = NightFiles(tmp_path / "movies")
    record = NightRecord("movies", "2026-11-28", "Europe/Berlin", "/movies.yaml", began="2026-11-29T01:00:00+01:00")
    assert files.read(record.night) is None
    assert files.all() == []
    done = record.with_step(Step("freeze", "a", "b", "1,000 rows", {"sha256": "0" * 64}))
    files.write(done)
    files.write(dataclasses.replace(record, date="2026-11-27", state="skipped"))
    assert files.read(record.night) == done
    assert done.step("freeze").facts["sha256"] == "0" * 64
    assert [(one.date, one.is_over) for one in files.all()] == [("2026-11-27", True), ("2026-11-28", False)]
    files.record(record.night).write_text('{"format": 9}')
    with pytest.raises(SweepError, match=r"2026-11-28\.json.*newer hpo"):
        files.all()
    assert files.newest().date == "2026-11-27"
    files.record(record.night).write_text(files.record(Night("movies", datetime.date(2026, 11, 27))).read_text())
    with pytest.raises(SweepError, match="it is of another date, 2026-11-27"):
        files.all()
