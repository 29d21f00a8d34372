"""A night: a sweep's name and a local date, so that nothing runs twice whatever clocks and schedulers do. Pure."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

NOON = datetime.time(12)


@dataclass(frozen=True, order=True)
class Night:
    """One night of one nightly sweep."""

    name: str
    """Of the sweep's file."""
    date: datetime.date
    """The local date on which the night began."""

    @property
    def sweep(self) -> str:
        """The name of the sweep that this night runs."""
        return f"{self.name}-{self.date.isoformat()}"

    @property
    def version(self) -> str:
        """The name of the data as it is in this night."""
        return f"{self.name}@{self.date.isoformat()}"

    def __str__(self) -> str:
        return f"the night {self.date.isoformat()} of {self.name!r}"


def night_at(name: str, now: datetime.datetime, zone: datetime.tzinfo, cutoff: datetime.time = NOON) -> Night:
    """The night that a moment belongs to: from `cutoff` on it is of that day, before it is of the day before.

    `now` knows its time zone. Only the local date and time of day count, so a night with an hour more or less, where
    clocks change, is one night all the same. Raises `ValueError` for a moment without a time zone.
    """
    if now.tzinfo is None:
        raise ValueError("the moment has no time zone")
    local = now.astimezone(zone)
    day = local.date() if local.time() >= cutoff else local.date() - datetime.timedelta(days=1)
    return Night(name, day)


def night_of(sweep: str) -> Night | None:
    """The night that runs the sweep of a name; None where the name has no date at its end."""
    try:
        night = Night(sweep[: -len("-2026-11-28")], datetime.date.fromisoformat(sweep[-len("2026-11-28") :]))
    except ValueError:
        return None
    return night if night.sweep == sweep else None


def nights_between(after: Night, until: Night) -> list[Night]:
    """The nights after one and before another, in order; of the name of the first."""
    days = (until.date - after.date).days
    return [Night(after.name, after.date + datetime.timedelta(days=day)) for day in range(1, days)]
