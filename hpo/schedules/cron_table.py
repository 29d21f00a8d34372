"""The user's crontab: one section of it is ours, and every other line stays as it was, byte for byte."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpo.errors import HpoError, UsageError
from hpo.quoting import clipped, quoted
from hpo.schedules.cron_times import CronTimes
from hpo.schedules.entry import MARK, Entry, marked

BEGIN = "# BEGIN hpo schedule: these lines belong to `hpo schedule`; write your own above them"
END = "# END hpo schedule"
_WHERE = "your crontab"
_MACHINE_ZONE = 'CRON_TZ=""'
"""What stands first in our section where lines above it set another zone: that holds for all below."""
_SETS_ZONE = re.compile(r"^[ \t]*[\"']?CRON_TZ[\"']?[ \t]*=", re.M)


@dataclass(frozen=True)
class Crontab:
    """The crontab that a program reads and replaces as a whole."""

    program: str

    @property
    def name(self) -> str:
        """As messages call it."""
        return _WHERE

    @property
    def variables(self) -> str:
        """Where a person writes the environment variables that its commands get."""
        return "into your crontab, above the lines of hpo schedule"

    def knows_zones(self) -> bool:
        """Whether this cron reads `CRON_TZ`: cronie does, Debian's does not."""
        done = self._run("-V")
        return b"cronie" in done.stdout + done.stderr

    def entries(self) -> list[Entry]:
        """The scheduled files. Raises `HpoError` where it cannot be read, or our section was changed by hand."""
        return entries_of(split(self._read())[1])

    def write(self, entries: Sequence[Entry]) -> None:
        """Replace our section. Raises `HpoError` where that fails."""
        others, _ = split(self._read())
        others += "\n" * (not others.endswith("\n") and bool(others and entries))
        done = self._run("-", given=(others + section(entries, others)).encode("utf-8", "surrogateescape"))
        if done.returncode or self.entries() != sorted(entries, key=_order):
            raise HpoError(f"{_WHERE} was not replaced: {_said(done)}")

    def _read(self) -> str:
        done = self._run("-l")
        if done.returncode and b"no crontab" not in done.stderr:
            raise HpoError(f"{_WHERE} cannot be read: {_said(done)}")
        return "" if done.returncode else done.stdout.decode("utf-8", "surrogateescape")

    def _run(self, option: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, "LC_ALL": "C"}
        try:
            return subprocess.run([self.program, option], input=given, capture_output=True, env=environment, timeout=30)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HpoError(f"{self.program} {option} failed: {error}") from error


def split(text: str) -> tuple[str, str]:
    """The lines of others, and our section. Raises `HpoError` where its begin or end is missing."""
    before, begin, rest = _cut(text, BEGIN)
    if not begin:
        if _cut(text, END)[1]:
            raise HpoError(f"{_WHERE} has {quoted(END)} without its begin; remove that line with crontab -e")
        return text, ""
    ours, end, after = _cut(rest, END)
    if not end:
        raise HpoError(f"{_WHERE} has no {quoted(END)} after its begin; add that line with crontab -e")
    return before + after, ours


def entries_of(ours: str) -> list[Entry]:
    """What stands in our section."""
    found, lines = [], iter(ours.split("\n")[:-1])
    for index, line in enumerate(lines):
        if index == 0 and line == _MACHINE_ZONE:
            continue
        if not line.startswith(MARK):
            raise _foreign(line)
        entry = marked(line, _WHERE)
        below = [next(lines, "") for _ in _lines(entry)[1:]]
        for other in below:
            if other.startswith("#") or not other:
                raise _foreign(other)
        found.append(_at_its_times(entry, below[-1]))
    return found


def _at_its_times(entry: Entry, line: str) -> Entry:
    """The entry at the times of its line: those count for cron, and a person may have changed them there."""
    try:
        return replace(entry, cron=CronTimes.parse(" ".join(line.split()[:5])).text)
    except UsageError as error:
        raise _foreign(line) from error


def _foreign(line: str) -> HpoError:
    return HpoError(f"{_WHERE}, between the lines of hpo schedule: {quoted(line)} is not ours; move it elsewhere")


def section(entries: Sequence[Entry], others: str = "") -> str:
    """Our section, to stand below the lines of others; nothing without entries. Those with a time zone come last,
    because `CRON_TZ` holds for all below."""
    if not entries:
        return ""
    zone = [_MACHINE_ZONE] if _SETS_ZONE.search(others) else []
    lines = [line for entry in sorted(entries, key=_order) for line in _lines(entry)]
    return "".join(f"{line}\n" for line in [BEGIN, *zone, *lines, END])


def _order(entry: Entry) -> tuple[str, str, str]:
    return entry.tz or "", *entry.key


def _lines(entry: Entry) -> list[str]:
    """An entry's lines: its mark, its zone, and the command."""
    words = [f"HPO_HOME={_quoted(entry.home)}", *map(_quoted, entry.argv)]
    command = f"{' '.join(words)} >>{_quoted(entry.log)} 2>&1"
    zone = [f"CRON_TZ={entry.tz}"] if entry.tz else []
    return [entry.mark, *zone, f"{entry.cron} {command}"]


def _quoted(word: str) -> str:
    """A word for the shell, behind cron: for cron `%` ends the line unless a backslash precedes it.

    Some crons take that backslash away and some leave it there: so it stands outside of quotes, where the shell takes
    it away.
    """
    return "\\%".join(map(shlex.quote, word.split("%")))


def _cut(text: str, line: str) -> tuple[str, str, str]:
    """A text before a whole line, the line, and what is after it."""
    lines = re.split(r"(?<=\n)", text)
    for index, found in enumerate(lines):
        if found.rstrip("\n") == line:
            return "".join(lines[:index]), found, "".join(lines[index + 1 :])
    return text, "", ""


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    return clipped(" ".join(done.stderr.decode("utf-8", "replace").split())) or f"exit code {done.returncode}"
