"""A scheduled file: when it runs, with which home and interpreter, and the command line of that."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from hpo.errors import HpoError, UsageError
from hpo.quoting import quoted
from hpo.schedules.cron_times import CronTimes
from trainers.protocol.codec import from_json, to_json

MARK = "# hpo "
"""Begins the line, in a crontab or a timer, that holds an entry as JSON."""


@dataclass(frozen=True)
class Entry:
    """One file that a scheduler runs every night."""

    file: str
    """The YAML, as an absolute path."""
    cron: str
    tz: str | None
    """Of `cron` and of the night's date; None for the machine's."""
    home: str
    python: str
    """The interpreter that has hpo."""
    log: str
    """Where its output goes, where the scheduler keeps none."""

    def __post_init__(self) -> None:
        for path in (self.file, self.home, self.python, self.log):
            if re.search(r"[\x00-\x1f\x7f\\]", path):
                raise UsageError(f"{quoted(path)}: a path with control characters or backslashes cannot be scheduled")

    @property
    def argv(self) -> list[str]:
        """The command; `-P` keeps a folder called `hpo` in the current directory from being imported."""
        zone = ["--tz", self.tz] if self.tz else []
        return [self.python, "-P", "-m", "hpo", "nightly", self.file, *zone]

    @property
    def key(self) -> tuple[str, str]:
        """What it is about: a second entry of the same file and home replaces the first."""
        return self.file, self.home

    @property
    def mark(self) -> str:
        """The line by which it is found again."""
        return MARK + json.dumps(to_json(self))


def marked(line: str, where: str) -> Entry:
    """The entry of a line with `MARK`. Raises `HpoError` where it was changed by hand."""
    try:
        entry = from_json(Entry, json.loads(line.removeprefix(MARK)))
        CronTimes.parse(entry.cron)
    except (ValueError, UsageError) as error:
        raise HpoError(f"{where}: the line {quoted(line)} was changed; remove it, then add the file again") from error
    return entry
