"""A world for nights: a clock that a test moves, rows that change, steps that note what they did and can be killed."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from hpo.errors import ConfigError
from hpo.nights.decide import decide
from hpo.nights.engine import Engine, Ran
from hpo.nights.lock import night_lock
from hpo.nights.record import NightFiles, NightRecord, StepName
from hpo.nights.steps import AFTER, WORK, Frame, Outcome, Steps, Tonight
from hpo.paths import Home
from tests.hpo.builders import Killed, make_config

BERLIN = ZoneInfo("Europe/Berlin")
FIRST = datetime.date(2026, 1, 1)
ORDER = (*WORK, *AFTER)


class World:
    """Everything outside of the engine."""

    def __init__(self, folder: Path, **nightly: Any) -> None:
        budget = {"until": "06:00"}
        self.config = make_config(folder, name="movies", budget=budget, nightly={"tz": "Europe/Berlin", **nightly})
        self.home = Home(folder / "home")
        self.files = NightFiles(self.home.nights("movies"))
        self.moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
        self.said: list[str] = []
        self.effects: list[tuple[datetime.date, StepName]] = []
        """What the steps did, in order; what a kill kept from being written down is done again."""
        self.signals: list[tuple[datetime.date, str]] = []
        """Night and state, of each signal."""
        self.idle_calls = 0
        self.rows: Callable[[datetime.date], str] = str
        self.kill: tuple[StepName, str] | None = None
        """A step, and whether it is killed `before` it does anything or `after`."""
        self.during: dict[StepName, Callable[[], object]] = {}
        """What else happens in a step; it may raise."""
        self.outcomes: dict[StepName, Outcome] = {}
        """What comes of a step, where that is not what mostly does."""
        self.is_outdated = False
        """Whether what a failed night has frozen is corrected."""
        self.starts: list[datetime.date] = []
        """Of the nights whose beginning somebody hears of."""

    def idle(self) -> list[str]:
        """Counts the calls in which no night was due."""
        self.idle_calls += 1
        return []

    def now(self) -> datetime.datetime:
        """A second later each time."""
        self.moment += datetime.timedelta(seconds=1)
        return self.moment

    def call(self, moment: datetime.datetime, *, always: bool = False, wrong: ConfigError | None = None) -> list[Ran]:
        """`hpo nightly` at a moment, of a file that may be `wrong`.

        Raises `Killed` where a step was to be killed, `Held` as the command does.
        """
        self.moment = moment.astimezone(datetime.UTC)
        config = self.config

        def local() -> datetime.datetime:
            return self.now().astimezone(BERLIN)

        called = local()
        with night_lock(self.files.lock, local, waits=False) as fd:
            frame = Frame(config, self.home, self.files, BERLIN, local, called, self.said.append, fd, always)
            engine = Engine(frame, self.steps())
            return engine.refuse(wrong) if wrong else engine.run()

    def steps(self) -> Steps:
        """The real decision, and fakes for all else."""
        acts = {name: self._act(name) for name in ORDER}
        return Steps(
            **acts, started=self._started, is_outdated=lambda tonight: self.is_outdated, idle=lambda frame: self.idle()
        )

    def _started(self, tonight: Tonight) -> list[str]:
        self.starts.append(tonight.night.date)
        return []

    def _act(self, name: StepName) -> Callable[[Tonight], Outcome]:
        def act(tonight: Tonight) -> Outcome:
            self._die(name, "before")
            self.during.get(name, lambda: None)()
            outcome = self._outcome(name, tonight)
            self.effects.append((tonight.night.date, name))
            if name == "signal":
                self.signals.append((tonight.night.date, tonight.record.state))
            self._die(name, "after")
            return outcome

        return act

    def _outcome(self, name: StepName, tonight: Tonight) -> Outcome:
        if name in self.outcomes:
            return self.outcomes[name]
        if name == "freeze":
            return Outcome("frozen", {"sha256": self.rows(tonight.night.date)})
        return decide(tonight) if name == "decide" else Outcome("done")

    def _die(self, name: StepName, when: str) -> None:
        if self.kill == (name, when):
            self.kill = None
            raise Killed

    def record(self, date: datetime.date) -> NightRecord:
        """A night as it is written down."""
        return next(record for record in self.files.all() if record.date == date.isoformat())


def one_o_clock(date: datetime.date, hour: int = 1, minute: int = 0, fold: int = 0) -> datetime.datetime:
    """A time of the morning after the evening of a night's date, in Berlin."""
    morning = date + datetime.timedelta(days=1)
    return datetime.datetime(morning.year, morning.month, morning.day, hour, minute, tzinfo=BERLIN, fold=fold)
