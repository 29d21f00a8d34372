"""What a sweep may spend, and what it has spent. Pure: time comes from the caller."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hpo.config.yaml_source import Section


@dataclass(frozen=True)
class Budget:
    """Whatever is reached first stops new trials. None: no bound."""

    trials: int | None = None
    hours: float | None = None
    """Of wall time, all sessions of a sweep together."""
    until: str | None = None
    """A time of day, "06:00": the first after the session began."""
    trial_minutes: float | None = None
    gpu_hours: float | None = None
    cost_per_hour: float | None = None
    cost_max: float | None = None


@dataclass
class Spent:
    """What all sessions of a sweep have used so far."""

    seconds: float = 0.0
    gpu_seconds: float = 0.0

    def cost(self, budget: Budget) -> float | None:
        return None if budget.cost_per_hour is None else self.seconds / 3600 * budget.cost_per_hour


@dataclass
class Meter:
    """Counts while a session runs, from its first training on: a look at a finished sweep costs nothing."""

    budget: Budget
    before: Spent
    clock: Callable[[], float]
    """Seconds since the epoch."""
    gpu_seconds: float = 0.0
    opened: float = field(init=False)
    began: float | None = None

    def __post_init__(self) -> None:
        self.opened = self.clock()

    def begin(self) -> None:
        """Something is about to be trained."""
        if self.began is None:
            self.began = self.clock()

    @property
    def spent(self) -> Spent:
        seconds = 0.0 if self.began is None else self.clock() - self.began
        return Spent(self.before.seconds + seconds, self.before.gpu_seconds + self.gpu_seconds)

    def exhausted(self, reserve_s: float = 0.0, reserve_gpu_s: float = 0.0) -> str | None:
        """Which bound is reached, in words, or None; seconds of wall time and of GPUs are kept for what comes after."""
        left = self.seconds_left()
        if left is not None and left[0] <= reserve_s:
            return left[1]
        budget, spent = self.budget, self.spent
        if budget.gpu_hours is not None and spent.gpu_seconds + reserve_gpu_s >= budget.gpu_hours * 3600:
            return f"gpu_hours: {budget.gpu_hours:g}"
        return None

    def seconds_left(self) -> tuple[float, str] | None:
        """Wall seconds until the first bound on time or cost, and its name; None without such a bound."""
        budget, spent = self.budget, self.spent
        bounds = []
        if budget.hours is not None:
            bounds.append((budget.hours * 3600 - spent.seconds, f"hours: {budget.hours:g}"))
        if budget.cost_max is not None and budget.cost_per_hour is not None:
            most_s = budget.cost_max / budget.cost_per_hour * 3600
            bounds.append((most_s - spent.seconds, f"cost.max: {budget.cost_max:g}"))
        if budget.until is not None:
            bounds.append((next_time(budget.until, self.opened) - self.clock(), f"until: {budget.until}"))
        return min(bounds, default=None)


def next_time(time_of_day: str, after: float) -> float:
    """The first moment after `after` (epoch seconds) at which local clocks show `time_of_day`."""
    hour, minute = (int(part) for part in time_of_day.split(":"))
    today = datetime.datetime.fromtimestamp(after).replace(hour=hour, minute=minute, second=0, microsecond=0, fold=0)
    # Without a time zone each is turned into seconds by the clock of its own day; `fold` is the second of two equal
    # times where clocks go back.
    moments = (today, today.replace(fold=1), today + datetime.timedelta(days=1))
    return next(seconds for moment in moments if (seconds := moment.timestamp()) > after)


def parse_budget(root: Section) -> Budget:
    section = root.section("budget")

    def bound(key: str, owner: Section = section) -> float | None:
        value = owner.optional(key, "a number above 0")
        is_clock = isinstance(value, str) and ":" in value  # 1:30: hours and minutes, or minutes and seconds
        expected = "a number above 0" + (", e.g. 1.5" if is_clock else "")
        return None if value is None else owner.number(key, 1.0, lambda v: v > 0, expected)

    trials = section.optional("trials")
    if trials is not None:
        trials = section.whole("trials", 1, 1)
    cost = section.section("cost")
    per_hour, most = bound("per_hour", cost), bound("max", cost)
    if most is not None and per_hour is None:
        cost.problem("is given without per_hour", "expected cost: {per_hour: 2.5, max: 40}", "max")
    cost.finish()
    budget = Budget(
        trials, bound("hours"), _time_of_day(section), bound("trial_minutes"), bound("gpu_hours"), per_hour, most
    )
    section.finish()
    return budget


def _time_of_day(section: Section) -> str | None:
    value: Any = section.optional("until", expected := 'a time of day, e.g. "06:00"')
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"([01]?[0-9]|2[0-3]):[0-5][0-9]", value):
        section.got(value, f"expected {expected}", "until")
        return None
    return value.rjust(5, "0")
