"""What is written down of a night: each step with its outcome, so that a night that was killed goes on at its step."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hpo.errors import SweepError
from hpo.nights.night import Night
from hpo.quoting import clipped
from trainers.protocol.codec import RECORD_FORMAT, from_file, to_file
from trainers.protocol.files import write_atomically

StepName = Literal["freeze", "look", "decide", "sweep", "certify", "promote", "keep", "report", "signal"]
"""In this order: today's rows are frozen; looked at; is there anything to do; the search; old and new release answer
the same rows; the alias; what is kept and freed; the night's page; whoever waits for it hears of it."""
NightState = Literal["running", "complete", "skipped", "failed", "missed"]
"""`skipped`: nothing had changed. `missed`: it was never begun, or it was given up, with the reason."""
ENDED: tuple[NightState, ...] = ("complete", "skipped", "failed", "missed")


@dataclass(frozen=True)
class Step:
    """A step that is over."""

    name: StepName
    began: str
    """Local ISO time with its offset, like `ended`."""
    ended: str
    said: str
    """What came of it, in a sentence for people."""
    facts: dict[str, Any] = field(default_factory=dict)
    """The outcome of the step as plain values: what later steps and the report read."""


@dataclass(frozen=True)
class NightRecord:
    """One night, as it is on disk."""

    name: str
    date: str
    """The night's local date, ISO."""
    zone: str
    """The name of the time zone that decided the date."""
    file: str
    """The sweep's YAML."""
    state: NightState = "running"
    began: str = ""
    ended: str = ""
    reason: str = ""
    """Why it ended as it did, where `state` alone does not say it."""
    steps: list[Step] = field(default_factory=list)
    format: int = RECORD_FORMAT

    @property
    def night(self) -> Night:
        """Which night it is of."""
        return Night(self.name, datetime.date.fromisoformat(self.date))

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left to do."""
        return self.state in ENDED

    def step(self, name: StepName) -> Step | None:
        """The outcome of a step; None while it is not over."""
        return next((step for step in self.steps if step.name == name), None)

    def facts(self, name: StepName) -> dict[str, Any]:
        """What a step left behind; empty where it has not happened."""
        step = self.step(name)
        return step.facts if step else {}

    def with_step(self, step: Step) -> NightRecord:
        """The record with one more step."""
        return dataclasses.replace(self, steps=[*self.steps, step])


@dataclass(frozen=True)
class NightFiles:
    """The files of the nights of one name."""

    dir: Path

    @property
    def lock(self) -> Path:
        """Held by the process that runs a night."""
        return self.dir / "lock"

    @property
    def data(self) -> Path:
        """Frozen rows, a folder for each content."""
        return self.dir / "data"

    @property
    def outbox(self) -> Path:
        """Signals that wait for their delivery."""
        return self.dir / "outbox"

    def record(self, night: Night) -> Path:
        """The record of one night."""
        return self.dir / f"{night.date.isoformat()}.json"

    def page(self, night: Night) -> Path:
        """What happened in one night, as a page for people."""
        return self.dir / f"{night.date.isoformat()}.html"

    def failure(self, night: Night) -> Path:
        """Where a step of one night failed as nobody expected, for whoever reports it."""
        return self.dir / f"{night.date.isoformat()}.error.txt"

    def write(self, record: NightRecord) -> None:
        """Write a record in one piece: a reader sees the old one or the new one. Raises `OSError`."""
        path = self.record(record.night)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_file(record))

    def read(self, night: Night) -> NightRecord | None:
        """The record of a night; None where there is none. Raises `SweepError` for a damaged one."""
        path = self.record(night)
        return read_night(path) if path.exists() else None

    def all(self, since: datetime.date = datetime.date.min) -> list[NightRecord]:
        """Every record, or those from a date on with the one before, the oldest first.

        Raises `SweepError` for a damaged one.
        """
        found = self.paths()
        older = sum(path.stem < since.isoformat() for path in found)
        return [read_night(path) for path in found[max(0, older - 1) :]]

    def newest(self) -> NightRecord | None:
        """The newest record that can be read; None where there is none."""
        for path in reversed(self.paths()):
            with suppress(SweepError):
                return read_night(path)
        return None

    def paths(self) -> list[Path]:
        """The files of all records, the oldest first."""
        return [path for path in sorted(self.dir.glob("*.json")) if _DATE.fullmatch(path.stem)]


_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def read_night(path: Path) -> NightRecord:
    """One record. Raises `SweepError` for a damaged one."""
    with fitting(path):
        record = from_file(NightRecord, path.read_text(encoding="utf-8"))
        if record.night.date.isoformat() != path.stem:
            raise ValueError(f"it is of another date, {record.date}")
        return record


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """While a record is read or retold: what does not fit becomes a `SweepError` that names its file."""
    try:
        yield
    except (ArithmeticError, LookupError, OSError, TypeError, ValueError) as error:
        way = "move the file away: then the night counts as missed, or runs again if it is tonight's"
        raise SweepError(f"{path} cannot be read: {clipped(str(error))}; {way}") from error
