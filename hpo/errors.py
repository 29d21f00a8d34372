"""Every error a person can meet, and the exit code each ends with.

    HpoError                 1   something failed; the message says what to do next
    ├── UsageError           2   what was asked for does not exist or cannot be
    │   └── ConfigError      2   a YAML file or its data: every problem at once
    ├── FetchError           1   a demo model or data set could not be brought
    ├── SweepError           1   the sweep cannot go on (host died, every trial failed)
    │   ├── RequestFailed    1   one request to the trial host failed, the host itself is well
    │   └── HostGone         1   the trial host ended unexpectedly
    ├── GateRefused          3   all ran, and a gate said no
    └── Interrupted        130   stopped by a person; the same command continues

A failed *trial* is a value (`TrialResult` with a cause), never an exception.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hpo.quoting import MOST_CHARACTERS, clipped, listed

MOST_PROBLEMS = 50
"""Lines of one message."""
MOST_OF_A_PROBLEM = 2000
"""Characters of one line."""


class HpoError(Exception):
    """Base of all errors shown to a person; `exit_code` is the process's."""

    exit_code = 1


class UsageError(HpoError):
    """The caller named something that does not exist: correct the command and run it again."""

    exit_code = 2


class FetchError(HpoError):
    """A demo asset could not be brought: check the network, then run `hpo fetch` again."""


class SweepError(HpoError):
    """The sweep cannot go on: read the named log, then run the same command to continue."""


class RequestFailed(SweepError):
    """One request failed with a `cause` (of `trainers.protocol.messages.Cause`); a caller may do without its answer."""

    def __init__(self, message: str, cause: str = "crash") -> None:
        super().__init__(message)
        self.cause = cause


class HostGone(SweepError):
    """The trial host's process ended: start another one, or run the same command to continue."""


class GateRefused(HpoError):
    """Everything ran, but no candidate passed the gate: the numbers are in the message."""

    exit_code = 3


class Interrupted(HpoError):
    """Stopped by a person: the same command continues where this one ended."""

    exit_code = 130


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input: where it stands, what was found, what would be right."""

    where: str
    found: str
    expected: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.found}" + (f"; {self.expected}" if self.expected else "")


class ConfigError(UsageError):
    """All problems of a config or its data, one line each: mend them and run again."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem" + ("s" if len(self.problems) != 1 else "")
        lines = [f"  {clipped(str(problem), MOST_OF_A_PROBLEM)}" for problem in self.problems[:MOST_PROBLEMS]]
        if more := len(self.problems) - len(lines):
            lines.append(f"  and {more:,} more")
        super().__init__("\n".join([count, *lines]))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint naming the closest known word, or all of them when none is close."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1) if len(word) <= MOST_CHARACTERS else []
    return f"did you mean {close[0]!r}?" if close else f"known: {listed(known)}"
