"""What the finalists' repeats and the sealed test showed: types and their JSON. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trainers.protocol.codec import to_json, was
from trainers.protocol.events import Cause
from trainers.protocol.settings import Setting

LEVEL = 0.95
"""Of all intervals; a p-value below 1 - LEVEL is beyond noise."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, and where it lies in 95 of 100 resamples."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A metric's difference between two contestants on the same rows (first minus second)."""

    difference: float
    low: float
    high: float
    p_value: float
    """Two-sided: how often chance alone shows a difference of this size or the other sign."""

    @property
    def is_beyond_noise(self) -> bool:
        """Whether chance alone shows such a difference in fewer than 5 of 100 cases."""
        return self.p_value < 1 - LEVEL

    def against(self, trial: int) -> Against:
        """The same, with the other trial's number."""
        return Against(self.difference, self.low, self.high, self.p_value, trial)


@dataclass(frozen=True)
class Against(Comparison):
    """The champion compared with another contestant."""

    trial: int
    """The other one."""

    def to_json(self) -> dict[str, Any]:
        """As `hpo show --json` prints it: with the verdict."""
        return {**to_json(self), "is_beyond_noise": self.is_beyond_noise}


@dataclass(frozen=True)
class Repeat:
    """One training of a contestant with a fresh seed."""

    seed: int
    value: float | None
    """Of the objective; None for a repeat that failed."""
    metrics: dict[str, float]
    run_id: str
    cause: Cause | None
    """Why it failed."""
    seconds: float


@dataclass(frozen=True)
class Contestant:
    """A finalist, or the baseline that all of them have to beat."""

    trial: int
    params: dict[str, Setting]
    repeats: list[Repeat]
    is_baseline: bool
    interval: Interval | None = None
    """Of the mean over its repeats; None where one of them failed: it is out of the contest."""

    def to_json(self) -> dict[str, Any]:
        """As `hpo show --json` prints it: without `interval` where it is out."""
        plain: dict[str, Any] = to_json(self)
        return plain if self.interval else {k: v for k, v in plain.items() if k != "interval"}


@dataclass(frozen=True)
class TestScore:
    """One contestant on the sealed test rows: its best repeat."""

    trial: int
    repeat: int
    metrics: dict[str, float]
    interval: Interval


@dataclass(frozen=True)
class SealedTest:
    """The test split, read once, after everything else was decided."""

    champion: TestScore
    baseline: TestScore | None = None
    """None where the baseline is the champion, or is out."""
    against_baseline: Against | None = None

    def to_json(self) -> dict[str, Any]:
        """As `hpo show --json` prints it: without the baseline's part where it has none."""
        plain: dict[str, Any] = {"champion": to_json(self.champion)}
        if self.baseline:
            plain["baseline"] = to_json(self.baseline)
        if self.against_baseline:
            plain["against_baseline"] = self.against_baseline.to_json()
        return plain


@dataclass(frozen=True)
class FinalistsOutcome:
    """Who really won: all contestants, the champion among them, and how sure that is."""

    fingerprint: str = field(metadata=was("identity"))
    """Of all repeats: other contestants or seeds make another outcome."""
    contestants: list[Contestant]
    champion: int | None
    """The trial with the best mean; None where every contestant is out."""
    against_baseline: Against | None = None
    against_runner_up: Against | None = None
    test: SealedTest | None = None

    def of(self, trial: int) -> Contestant:
        """The contestant of this trial. Raises `StopIteration` for a trial that is none."""
        return next(c for c in self.contestants if c.trial == trial)

    def baseline(self) -> Contestant | None:
        """The baseline, unless it is out."""
        return next((c for c in self.contestants if c.is_baseline and c.interval), None)

    def to_json(self) -> dict[str, Any]:
        """As the study keeps it and `hpo show --json` prints it."""
        return {
            "contestants": [contestant.to_json() for contestant in self.contestants],
            "champion": self.champion,
            "against_baseline": self.against_baseline and self.against_baseline.to_json(),
            "against_runner_up": self.against_runner_up and self.against_runner_up.to_json(),
            "identity": self.fingerprint,
            "test": self.test and self.test.to_json(),
        }
