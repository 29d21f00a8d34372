"""What the finalists' repeats and the sealed test showed: types and their JSON. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hpo.config.finalists import Claim
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
    of_search: bool = False
    """The search's own training, with the sweep's seed: where adapters are compared, and not recipes."""
    choosing: float | None = None
    """The objective on the rows that choose; None where all rows do both, and for earlier outcomes."""


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
    """One contestant on the sealed test rows: its best training."""

    trial: int
    repeat: int | None
    """None for the search's own training."""
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


DropReason = Literal["behind", "alike", "beaten"]
"""It could not win any more; more seeds would not have told it from the best; or, of the baseline, it was beaten."""


@dataclass(frozen=True)
class Dropped:
    """A contestant that was trained with fewer seeds than the file allows."""

    trial: int
    seeds: int
    """With how many it was trained."""
    why: DropReason


@dataclass(frozen=True)
class RaceReport:
    """What is claimed of the champion, and what it took."""

    claim: Claim
    trainings: int
    """Repeats that were trained."""
    cap: int
    """Repeats that the file allows."""
    dropped: list[Dropped]
    choosing: int
    """Validation rows on which contestants were ranked and the champion chosen."""
    certifying: int
    """Validation rows that its differences and the intervals are of."""
    is_split: bool
    """Whether no row does both."""
    comparisons: int
    """p-values and intervals of differences hold for so many comparisons together."""


@dataclass(frozen=True)
class FinalistsOutcome:
    """Who really won: all contestants, the champion among them, and how sure that is."""

    fingerprint: str = field(metadata=was("identity"))
    """Of all repeats: other contestants or seeds make another outcome."""
    contestants: list[Contestant]
    champion: int | None
    """The trial with the best mean on the rows that choose; None where every contestant is out."""
    against_baseline: Against | None = None
    against_runner_up: Against | None = None
    test: SealedTest | None = None
    race: RaceReport | None = None
    """None in outcomes of before there was one: all had all seeds, and all rows did both."""

    def of(self, trial: int) -> Contestant:
        """The contestant of this trial. Raises `StopIteration` for a trial that is none."""
        return next(c for c in self.contestants if c.trial == trial)

    def baseline(self) -> Contestant | None:
        """The baseline, unless it is out."""
        return next((c for c in self.contestants if c.is_baseline and c.interval), None)

    @property
    def has_lost_baseline(self) -> bool:
        """Whether the baseline was a contestant, and is out because a training of it failed."""
        return any(c.is_baseline and c.interval is None for c in self.contestants)

    def to_json(self) -> dict[str, Any]:
        """As the study keeps it and `hpo show --json` prints it."""
        return {
            "contestants": [contestant.to_json() for contestant in self.contestants],
            "champion": self.champion,
            "against_baseline": self.against_baseline and self.against_baseline.to_json(),
            "against_runner_up": self.against_runner_up and self.against_runner_up.to_json(),
            "identity": self.fingerprint,
            "test": self.test and self.test.to_json(),
            "race": self.race and to_json(self.race),
        }
