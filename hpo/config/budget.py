"""What a sweep may spend, and what it has spent. Pure: time comes from the caller."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from hpo.config.keys import Described, Group, Number, Whole, read_all
from hpo.config.yaml_source import Section

TIME_OF_DAY = "([01]?[0-9]|2[0-3]):[0-5][0-9]"
"""`06:00` or `6:00`, as a regular expression."""
COST = (
    Number("per_hour", None, "price of an hour of wall time; alone it only makes the cost shown", above=0),
    Number("max", None, "most cost; needs `per_hour`", above=0),
)
BUDGET = (
    Whole("trials", None, "most trials, whatever `num_trials` or the grid says", low=1),
    Number("hours", None, "wall time of all sessions together, each from its first training on", above=0),
    Described("until", None, 'a time of day, `"06:00"`: the first one after the session began',
              described={"type": ["string", "null"], "pattern": f"^{TIME_OF_DAY}$"}),
    Number("gpu_hours", None, "what trials on GPUs took, added up", above=0),
    Group("cost", None, "what wall time costs", keys=COST),
    Number("trial_minutes", None,
           "a trial that takes longer ends at its next step; what it reached is its result, and the search goes on",
           above=0),
)  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """The keys of `budget:`. Whatever is reached first stops new trials. None: no bound."""

    trials: int | None = None
    hours: float | None = None
    until: str | None = None
    trial_minutes: float | None = None
    gpu_hours: float | None = None
    cost_per_hour: float | None = None
    cost_max: float | None = None


@dataclass
class Spent:
    """What all sessions of a sweep have used so far."""

    seconds: float = 0.0
    gpu_seconds: float = 0.0
    """Of trainings that have ended."""
    under_way_gpu_seconds: float = 0.0
    """Of those that have not: they run, or were interrupted."""

    @property
    def all_gpu_seconds(self) -> float:
        """What all trainings took of GPUs."""
        return self.gpu_seconds + self.under_way_gpu_seconds

    def cost(self, budget: Budget) -> float | None:
        """In the unit of the file's `cost.per_hour`; None where the file has no price."""
        return None if budget.cost_per_hour is None else self.seconds / 3600 * budget.cost_per_hour


@dataclass
class Meter:
    """Counts while a session runs, from its first training on: a look at a finished sweep costs nothing."""

    budget: Budget
    before: Spent
    clock: Callable[[], float]
    """Seconds since the epoch."""
    ends_at: float | None = None
    """The moment that `budget.until` stands for, where it was fixed before this session opened."""
    gpu_seconds: float = 0.0
    """Of trainings that have ended in this session."""
    under_way: dict[int, float] | None = None
    """Trial that has not ended -> GPU seconds that it has taken in all sessions; None until a search looks."""
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
        """What all sessions have used, this one included."""
        seconds = 0.0 if self.began is None else self.clock() - self.began
        under_way = self.before.under_way_gpu_seconds if self.under_way is None else sum(self.under_way.values())
        return Spent(self.before.seconds + seconds, self.before.gpu_seconds + self.gpu_seconds, under_way)

    def exhausted(self, reserve_s: float = 0.0, reserve_gpu_s: float = 0.0) -> str | None:
        """Which bound is reached, in words, or None; seconds of wall time and of GPUs are kept for what comes after."""
        left = self.seconds_left()
        if left is not None and left[0] <= reserve_s:
            return left[1]
        budget, spent = self.budget, self.spent
        if budget.gpu_hours is not None and spent.all_gpu_seconds + reserve_gpu_s >= budget.gpu_hours * 3600:
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
            end = next_time(budget.until, self.opened) if self.ends_at is None else self.ends_at
            bounds.append((end - self.clock(), f"until: {budget.until}"))
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
    """Read `budget:`."""
    section = root.section("budget")
    cost = section.section("cost")
    price = read_all(cost, COST)
    if cost.raw("max") is not None and cost.raw("per_hour") is None:
        cost.problem("is given without per_hour", "expected cost: {per_hour: 2.5, max: 40}", "max")
    cost.finish()
    bounds = read_all(section, BUDGET)
    budget = Budget(**bounds, until=_time_of_day(section), cost_per_hour=price["per_hour"], cost_max=price["max"])
    section.finish()
    return budget


def _time_of_day(section: Section) -> str | None:
    value = section.optional("until", expected := 'a time of day, e.g. "06:00"')
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(TIME_OF_DAY, value):
        section.got(value, f"expected {expected}", "until")
        return None
    return value.rjust(5, "0")
