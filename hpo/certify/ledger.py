"""The ledger of a released model's name: every claim that nights made for it, and what each might have cost.

e-LOND (Xu & Ramdas, Online multiple testing with e-values, 2024): claim t is tested at the level
budget * share(t) * (1 + claims certified before), and certified where its e-value is at least 1 / level. Then the
expected share of false ones among all certified claims, over all nights ever, is at most the budget, however the claims
depend on each other; and nights do depend, because they share rows. A night without a claim costs nothing.

Of the claims that were certified against one champion, one counts: a gain that a person has not approved yet is claimed
anew each night. That makes levels smaller, never larger, so what e-LOND promises still holds.

A ledger is a file of JSON lines, which only grows. A night has one line of each kind, found by its key: a night that is
killed before its line repeats its work, and one that is killed after it finds the line. So none is counted twice.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from hpo.errors import SweepError
from hpo.lock import exclusive
from trainers.protocol.codec import RECORD_FORMAT, from_json, to_json

SPREAD = 15
"""About so many claims have nearly the level of the first one; after a hundred it is a twentieth, after a thousand a
five-hundredth. So there is power for the first hundred claims, and for years after."""


def share(claim: int) -> float:
    """The share of the budget that a claim has, counted from 1: in proportion to (claim + SPREAD) ** -1.5.

    All shares together are below 1: a convex function's sum is at most its integral from one half on.
    """
    return 0.5 * math.sqrt(SPREAD + 0.5) / math.pow(claim + SPREAD, 1.5)


def level(budget: float, claim: int, certified: int) -> float:
    """The level of a claim, counted from 1, after so many that were certified."""
    return budget * share(claim) * (1 + certified)


def target(budget: float, claim: int) -> float:
    """The e-value that certifies a claim, counted from 1, whatever was certified before."""
    return 1 / level(budget, claim, 0)


@dataclass(frozen=True)
class Measured:
    """A metric, and where it lies in 95 of 100 draws of rows."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Claim:
    """That a new version is better than the champion of its name, as it was tested in one night."""

    night: str
    """As `Night.version` names it."""
    sweep: str
    old: str
    """The champion's version."""
    new: str
    rows: int
    """Certifying rows."""
    about: str
    """What the claim is about, for people."""
    e_value: float = 0.0
    number: int = 0
    """Which claim of this name it is, from 1."""
    level: float = 0.0
    is_certified: bool = False
    format: int = RECORD_FORMAT


@dataclass(frozen=True)
class Standing:
    """What a version measured on certifying rows in the night that released it: what it is compared with later."""

    night: str
    version: str
    metric: str
    measured: Measured
    rows: int
    format: int = RECORD_FORMAT


@dataclass(frozen=True)
class SealedReading:
    """The sealed test, read once more: the more often, the less it says."""

    night: str
    by: Literal["finalists", "promotion"]
    """Who read it: a promotion that was certified; in ledgers of earlier versions also the finals of a sweep."""
    rows: int
    metric: str
    old: Measured | None
    new: Measured | None
    """None where finals read it."""
    number: int = 0
    """Which reading of this name it is, from 1."""
    format: int = RECORD_FORMAT


Line = Claim | Standing | SealedReading
_KINDS: dict[str, type[Line]] = {"claim": Claim, "standing": Standing, "test": SealedReading}
L = TypeVar("L", Claim, Standing, SealedReading)

_WAY_ON = "bring back a copy of the file: without all of its claims, the error budget cannot be kept"


@dataclass(frozen=True)
class Ledger:
    """The lines of one name.

    Methods raise `SweepError` where the file is damaged, `OSError` where it cannot be written.
    """

    path: Path
    budget: float = 0.05
    """The share of certified claims that may be false, over all nights."""

    def lines(self) -> list[Line]:
        """All of them, the oldest first. A last line that a kill cut short does not count."""
        if not self.path.exists():
            return []
        try:
            *whole, _ = self.path.read_bytes().split(b"\n")
        except OSError as error:
            raise SweepError(f"{self.path}: cannot be read: {error.strerror}; {_WAY_ON}") from error
        return [self._line(number, text) for number, text in enumerate(whole, 1)]

    def claims(self) -> list[Claim]:
        """Every claim, the oldest first."""
        return [line for line in self.lines() if isinstance(line, Claim)]

    def readings(self) -> list[SealedReading]:
        """Every reading of the sealed test, the oldest first."""
        return [line for line in self.lines() if isinstance(line, SealedReading)]

    def standing(self, version: str, metric: str) -> Standing | None:
        """What a version measured when it was released; None where no night did so, or by another metric."""
        found = [line for line in self.lines() if isinstance(line, Standing)]
        return next((s for s in reversed(found) if (s.version, s.metric) == (version, metric)), None)

    def settle(self, claim: Claim, evidence: Callable[[float], float]) -> Claim:
        """Test a claim, and write it down; of a night that has made one before, that one.

        `evidence` gives its e-value for a target, which follows from the claim's number and from no certifying row.
        """

        def tested(lines: Sequence[Line]) -> Claim:
            before = [line for line in lines if isinstance(line, Claim)]
            number = len(before) + 1
            at = level(self.budget, number, len({one.old for one in before if one.is_certified}))
            found = evidence(target(self.budget, number))
            return dataclasses.replace(claim, e_value=found, number=number, level=at, is_certified=found >= 1 / at)

        return self._written(claim, lambda line: line.night == claim.night, tested)

    def stand(self, standing: Standing) -> Standing:
        """Write down what a version measured; where its night has done so before, what it wrote then."""
        key = (standing.night, standing.version)
        return self._written(standing, lambda line: (line.night, line.version) == key, lambda _: standing)

    def read(self, reading: SealedReading) -> SealedReading:
        """Count a reading of the sealed test; of a night that has read it for this before, that reading."""

        def counted(lines: Sequence[Line]) -> SealedReading:
            return dataclasses.replace(reading, number=1 + sum(isinstance(line, SealedReading) for line in lines))

        return self._written(reading, lambda line: (line.night, line.by) == (reading.night, reading.by), counted)

    def _written(self, line: L, is_same: Callable[[L], bool], made: Callable[[Sequence[Line]], L]) -> L:
        """The line of this kind that is the same, or a new one, which no other process writes meanwhile."""
        with exclusive(self.path.with_suffix(".lock")):
            lines = self.lines()
            for earlier in lines:
                if isinstance(earlier, type(line)) and is_same(earlier):
                    return earlier
            new = made(lines)
            self._append(new)
        return new

    def _append(self, line: Line) -> None:
        """One line more, on the disk when this returns; what a kill left of another one goes."""
        kind = next(name for name, cls in _KINDS.items() if isinstance(line, cls))
        text = json.dumps({"kind": kind, **to_json(line)}) + "\n"
        with self.path.open("ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def _line(self, number: int, text: bytes) -> Line:
        try:
            data = json.loads(text)
            if data.get("format", 1) > RECORD_FORMAT:
                raise ValueError(f"a newer hpo wrote it (format {data['format']}, this one reads {RECORD_FORMAT})")
            line = from_json(_KINDS[data["kind"]], data)
            if isinstance(line, Claim) and not 0 < line.level < 1:
                raise ValueError(f"a claim's level is {line.level}, not between 0 and 1")
            return line
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SweepError(f"{self.path}:{number}: cannot be read ({str(error)[:100]}); {_WAY_ON}") from error
