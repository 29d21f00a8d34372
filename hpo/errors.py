"""Every error that a person can see, and the exit code of each.

    HpoError                 1   something failed; the message says what to do next
    ├── UsageError           2   a name or option of the command is wrong
    │   └── ConfigError      2   a YAML file or its data is wrong: lists every problem at once
    ├── FetchError           1   a demo model or data set could not be downloaded
    ├── SweepError           1   the sweep cannot continue (the host died, every trial failed)
    │   ├── RequestFailed    1   one request to the trial host failed; the host still runs
    │   └── HostGone         1   the trial host ended unexpectedly
    ├── ClusterError         1   the Ray cluster cannot be used; the message says what to do
    ├── GateRefused          3   everything ran, but a gate refused the release
    └── Interrupted        130   stopped by a person; the same command continues

A failed *trial* is a value (`TrialResult` with a cause), never an exception.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hpo.quoting import MOST_CHARACTERS, clipped, listed

MOST_PROBLEMS = 50
"""Problems listed in one message."""
MOST_OF_A_PROBLEM = 2000
"""Characters shown of one problem."""


class HpoError(Exception):
    """Base of all errors shown to a person; the process ends with its `exit_code`."""

    exit_code = 1


class UsageError(HpoError):
    """The command is wrong or names something that does not exist: correct it and run it again."""

    exit_code = 2


class FetchError(HpoError):
    """A demo model or data set could not be fetched: check the network, then run `hpo fetch` again."""


class SweepError(HpoError):
    """The sweep cannot continue: read the log that the message names, then run the same command again."""


class RequestFailed(SweepError):
    """One request to the trial host failed; `cause` is a `trainers.protocol.events.Cause`. The host still runs."""

    def __init__(self, message: str, cause: str = "crash") -> None:
        super().__init__(message)
        self.cause = cause


class HostGone(SweepError):
    """The trial host's process ended: start a new one, or run the same command again."""


class ClusterError(HpoError):
    """No node of a Ray cluster can train: do what the message says, then run the same command again."""


class GateRefused(HpoError):
    """Everything ran, but no candidate passed the gate; the message gives the numbers."""

    exit_code = 3


class Interrupted(HpoError):
    """A person stopped the command; the same command continues where it ended."""

    exit_code = 130


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an input: where it is, what was found, what would be right."""

    where: str
    found: str
    expected: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.found}" + (f"; {self.expected}" if self.expected else "")


class ConfigError(UsageError):
    """All problems of a config or its data, one line each: fix them and run again."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem" + ("s" if len(self.problems) != 1 else "")
        lines = [f"  {clipped(str(problem), MOST_OF_A_PROBLEM)}" for problem in self.problems[:MOST_PROBLEMS]]
        if more := len(self.problems) - len(lines):
            lines.append(f"  and {more:,} more")
        super().__init__("\n".join([count, *lines]))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for an unknown word: the closest known one, or a list of the known ones where none is close."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1) if len(word) <= MOST_CHARACTERS else []
    return f"did you mean {close[0]!r}?" if close else f"known: {listed(known)}"
