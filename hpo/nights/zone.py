"""The time zone whose dates nights have, and when a night's window ends in it."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

from hpo.config.nightly import why_no_zone
from hpo.errors import UsageError
from hpo.nights.night import Night
from hpo.quoting import quoted

LOCALTIME = Path("/etc/localtime")
_DATABASE = "zoneinfo/"
"""Behind this part of a path comes the name of a zone."""


def zone_named(name: str | None, environment: Mapping[str, str] = os.environ, localtime: Path = LOCALTIME) -> ZoneInfo:
    """The zone of that name; None for the machine's: that of `TZ`, else of `/etc/localtime`, else UTC.

    Raises `UsageError` for a name that is no zone, and for a file that holds none.
    """
    if name is not None:
        return _known(name, "--tz")
    given = environment.get("TZ", "").removeprefix(":")
    if given.startswith("/") and Path(given).exists():  # as `:/etc/localtime`
        localtime = Path(given)
    elif given:
        return _known(given.rpartition(_DATABASE)[2], "TZ")
    if not localtime.exists():
        return ZoneInfo("UTC")
    key = str(localtime.resolve()).rpartition(_DATABASE)[2]
    if why_no_zone(key) is None:
        return ZoneInfo(key)
    try:
        with localtime.open("rb") as file:  # a copy, which does not name its zone
            return ZoneInfo.from_file(file, key="local")
    except (OSError, ValueError) as error:
        found = f"{localtime} is not the file of a time zone: {error}"
        raise UsageError(f"{found}; give --tz, e.g. Europe/Berlin") from error


def _known(name: str, given_by: str) -> ZoneInfo:
    if why := why_no_zone(name):
        raise UsageError(f"{given_by} {quoted(name)}: {why}")
    return ZoneInfo(name)


def window_end(night: Night, until: str | None, cutoff: datetime.time, zone: datetime.tzinfo) -> datetime.datetime:
    """When a night is over: at the first `until` ("06:00") after it began, without it where the next night begins."""
    began = datetime.datetime.combine(night.date, cutoff, zone)
    return session_end(began, until, cutoff, zone)


def session_end(
    now: datetime.datetime, until: str | None, cutoff: datetime.time, zone: datetime.tzinfo
) -> datetime.datetime:
    """Until when work that begins now may go on: the first `until`, or the beginning of the next night."""
    ends = [cutoff] if until is None else [cutoff, datetime.time.fromisoformat(until)]
    return min(_next(time_of_day, now, zone) for time_of_day in ends)


def _next(time_of_day: datetime.time, after: datetime.datetime, zone: datetime.tzinfo) -> datetime.datetime:
    """The first moment after another one at which clocks of a zone show a time of day.

    Where clocks go back, each of the two counts; where they leave it out, the moment at which they would have shown it.
    """
    day = after.astimezone(zone).date()
    dates = (day, day + datetime.timedelta(days=1), day + datetime.timedelta(days=2))
    found = []
    for date in dates:
        first, second = (
            datetime.datetime.combine(date, time_of_day.replace(fold=fold), zone).astimezone(datetime.UTC)
            for fold in (0, 1)
        )
        found += [first, max(first, second)]  # of a time that is left out, the second one is an hour early
    return min(moment for moment in found if moment > after)
