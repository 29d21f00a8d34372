"""When a night is due: the five fields of cron, read as Debian's cron reads them, in a time zone. Pure."""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from hpo.errors import UsageError
from hpo.quoting import quoted

_FIELDS = ("minute", "hour", "day of month", "month", "day of week")
_WORDS = "SUN|MON|TUE|WED|THU|FRI|SAT|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
_FIELD = re.compile(rf"(?:[\d*,/-]|{_WORDS})+", re.I)
"""What every cron knows; `L` and `#` are extensions of a few."""
_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_SOME_MOMENT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class CronTimes:
    """Five fields, checked."""

    text: str

    @classmethod
    def parse(cls, text: str) -> CronTimes:
        """Raises `UsageError` where no cron would understand the fields."""
        fields = text.split()
        right = 'expected five fields, e.g. "0 1 * * *" for one at night'
        if len(fields) != len(_FIELDS):
            raise UsageError(f"--cron {quoted(text)} has {len(fields)} fields; {right}")
        for name, field in zip(_FIELDS, fields, strict=True):
            if not _FIELD.fullmatch(field):
                raise UsageError(f"--cron {quoted(text)}: {quoted(field)} is not a {name}; {right}")
        try:
            CronSim(text, _SOME_MOMENT)
        except CronSimError as error:
            raise UsageError(f"--cron {quoted(text)}: {str(error).lower()}; {right}") from error
        return cls(" ".join(fields))

    def next_after(self, moment: datetime.datetime, zone: datetime.tzinfo) -> datetime.datetime:
        """The first moment after another one at which cron, with its clock in `zone`, starts its programs.

        A time that a change of the clock leaves out comes right after the change; one that comes twice counts once.
        """
        return next(CronSim(self.text, moment.astimezone(zone))).astimezone(zone)

    def calendar(self, zone: str | None) -> list[str]:
        """The same as `OnCalendar` of systemd; two lines where either of two kinds of days will do."""
        found = CronSim(self.text, _SOME_MOMENT)
        clock = f"{_list(found.hours, 24)}:{_list(found.minutes, 60)}:00" + (f" {zone}" if zone else "")
        numbers = {int(day) % 7 for day in found.weekdays if isinstance(day, int)}
        weekdays = "" if len(numbers) == len(_DAYS) else ",".join(_DAYS[day] for day in sorted(numbers)) + " "
        months, days = _list(found.months, 12), _list(found.days, 31)
        if found.day_and:
            return [f"{weekdays}*-{months}-{days} {clock}"]
        return [f"*-{months}-{days} {clock}", f"{weekdays}*-{months}-* {clock}"]


def as_on_machine(times: CronTimes, zone: str, year: int) -> str | None:
    """The fields that this machine's clock needs so that it is that time in another zone, in every season of a year.

    None where the days or the minutes would differ as well.
    """
    minute, hour, *days = times.text.split()
    if days != ["*", "*", "*"] or not (minute.isdigit() and hour.isdigit()):
        return None
    moments = [
        datetime.datetime(year, month, 15, int(hour), int(minute), tzinfo=ZoneInfo(zone)).astimezone()
        for month in range(1, 13)
    ]
    if {moment.minute for moment in moments} != {int(minute)}:
        return None
    return f"{minute} {','.join(map(str, sorted({moment.hour for moment in moments})))} * * *"


def is_machine_zone(zone: str, year: int) -> bool:
    """Whether a zone's clock shows what this machine's does, on every day of a year."""
    noons = (
        datetime.datetime(year, 1, 1, 12, tzinfo=datetime.UTC) + datetime.timedelta(days=day) for day in range(366)
    )
    return all(noon.astimezone().utcoffset() == noon.astimezone(ZoneInfo(zone)).utcoffset() for noon in noons)


def _list(values: Collection[int], count: int) -> str:
    """`*` for all of them."""
    ordered: Sequence[int] = sorted(values)
    return "*" if len(ordered) == count else ",".join(f"{value:02d}" for value in ordered)
