"""What a night is made of: its steps as callables, what each is given, and what it leaves behind."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpo.config.nightly import Nightly
from hpo.config.sweep_config import SweepConfig
from hpo.nights.night import Night
from hpo.nights.record import NightFiles, NightRecord, NightState, StepName
from hpo.paths import Home

WORK: tuple[StepName, ...] = ("freeze", "look", "decide", "sweep", "certify", "promote", "keep")
"""In this order; a step may end the night."""
AFTER: tuple[StepName, ...] = ("report", "signal")
"""Of every night that began, however it ended."""
Clock = Callable[[], datetime.datetime]
"""The time now, with its zone."""
Facts = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What came of a step."""

    said: str
    """In a sentence for people."""
    facts: Facts = field(default_factory=dict)
    """Plain values, which later steps and the report read."""
    ends: NightState | None = None
    """How the night ended, where this step ended it; `said` is the reason. Only before anything is decided may it be
    `failed`: later steps raise, so that they are tried again."""


@dataclass(frozen=True)
class Frame:
    """What all nights of one call share."""

    config: SweepConfig
    """As the file says it."""
    home: Home
    files: NightFiles
    zone: datetime.tzinfo
    now: Clock
    called: datetime.datetime
    """When this call came. One that waited for another, past noon say, is for the night in which it came."""
    say: Callable[[str], None]
    lock_fd: int
    """Holds the lock of the nights: child processes keep it."""
    always: bool = False
    """Whether the sweep runs also where nothing has changed."""

    @property
    def nightly(self) -> Nightly:
        """How the file asks to be run."""
        return self.config.nightly or Nightly()


@dataclass(frozen=True)
class Tonight:
    """What a step is given."""

    frame: Frame
    record: NightRecord
    """With the steps so far."""
    earlier: Sequence[NightRecord]
    """Those of earlier dates, the oldest first."""
    since: datetime.datetime
    """When this call began to work on it."""

    @property
    def night(self) -> Night:
        """Which night it is."""
        return self.record.night

    @property
    def config(self) -> SweepConfig:
        """As the file says it."""
        return self.frame.config

    @property
    def home(self) -> Home:
        """Where all data lies."""
        return self.frame.home

    def facts(self, name: StepName) -> Facts:
        """What a step of this night left behind; empty where it has not happened."""
        return self.record.facts(name)


Act = Callable[[Tonight], Outcome]
"""A step. A kill may come between its end and the record of it: then it is called again."""


@dataclass(frozen=True)
class Steps:
    """The steps of a night, as the engine calls them. Each may raise `HpoError`: then the night has failed."""

    freeze: Act
    look: Act
    decide: Act
    sweep: Act
    certify: Act
    promote: Act
    keep: Act
    report: Act
    signal: Act
    started: Callable[[Tonight], Sequence[str]]
    """Called whenever a night begins or continues, before its first step; returns what to say, and never raises. Not
    called for a failed night that is tried again: whoever waits for it may hear nothing of its end."""
    is_outdated: Callable[[Tonight], bool]
    """Whether a failed night without a result begins again with its first step: what it was asked or its rows have
    changed. Never raises."""
    idle: Callable[[Frame], Sequence[str]]
    """Called where no night is due, for signals that wait; returns what to say."""

    def act(self, name: StepName) -> Act:
        """The step of that name."""
        found: Act = getattr(self, name)
        return found
