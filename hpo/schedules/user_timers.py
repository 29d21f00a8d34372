"""The user's systemd timers: a timer and a service for each scheduled file, in two files of our own."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpo.errors import HpoError
from hpo.quoting import clipped
from hpo.schedules.cron_times import CronTimes
from hpo.schedules.entry import MARK, Entry, marked
from trainers.protocol.files import write_atomically

PREFIX = "hpo-nightly-"
STOPS_WITHIN_S = 150
"""A sweep waits two minutes for the checkpoints of its trials."""


@dataclass(frozen=True)
class UserTimers:
    """The units of one user."""

    program: str
    """`systemctl`."""
    folder: Path
    """Where the user's own units lie."""

    @classmethod
    def at(cls, program: str, environment: dict[str, str]) -> UserTimers:
        """Those that systemd reads for the user of an environment."""
        config = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '~')}/.config"
        return cls(program, Path(config).expanduser() / "systemd" / "user")

    @property
    def name(self) -> str:
        """As messages call it."""
        return "your systemd timers"

    @property
    def variables(self) -> str:
        """Where a person writes the environment variables that its commands get."""
        return f"into {self.folder.parents[1] / 'environment.d' / 'hpo.conf'}, then: systemctl --user daemon-reload"

    def knows_zones(self) -> bool:
        """It does, for each timer."""
        return True

    def is_running(self) -> bool:
        """Whether systemd runs for this user now."""
        return self._run("show-environment").returncode == 0

    def entries(self) -> list[Entry]:
        """The scheduled files. Raises `HpoError` where one was changed by hand."""
        found = []
        for timer in sorted(self.folder.glob(f"{PREFIX}*.timer")):
            lines = [line for line in timer.read_text(encoding="utf-8").split("\n") if line.startswith(MARK)]
            found += [marked(line, str(timer)) for line in lines]
        return found

    def write(self, entries: Sequence[Entry]) -> None:
        """Have these timers and no others of ours. Raises `HpoError` where systemd refuses one."""
        wanted = {unit_name(entry): entry for entry in entries}
        before = {unit_name(entry): entry for entry in self.entries()}
        for name in sorted(before.keys() - wanted.keys()):
            self._must("disable", "--now", f"{name}.timer")
            for path in (self.folder / f"{name}.service", self.folder / f"{name}.timer"):  # found again by the timer
                path.unlink(missing_ok=True)
        for name in (name for name, entry in wanted.items() if before.get(name) != entry):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / f"{name}.service", service(wanted[name]))
            write_atomically(self.folder / f"{name}.timer", timer(wanted[name]))
        self._must("daemon-reload")
        for name in wanted:  # also those whose files are there: a kill may have come before systemd knew them
            self._must("enable", "--now", f"{name}.timer")
            self._must("restart", f"{name}.timer")  # one that ran before still has its old times

    def _must(self, *words: str) -> None:
        done = self._run(*words)
        if done.returncode:
            said = clipped(" ".join(done.stderr.split())) or f"exit code {done.returncode}"
            raise HpoError(f"systemctl --user {' '.join(words)} failed: {said}")

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [self.program, "--user", *words]
        environment = {**os.environ, "LC_ALL": "C"}
        try:
            return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment,
                                  timeout=30, errors="replace")  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HpoError(f"{' '.join(command)} failed: {error}") from error


def unit_name(entry: Entry) -> str:
    """Of an entry's two files: the YAML's name, and what tells it from another of that name."""
    readable = re.sub(r"[^A-Za-z0-9_-]", "-", Path(entry.file).stem)[:60]
    return f"{PREFIX}{readable}-{hashlib.sha256(repr(entry.key).encode()).hexdigest()[:8]}"


def timer(entry: Entry) -> str:
    """The timer; a time at which the machine was off is made up for when it is on again."""
    times = "\n".join(f"OnCalendar={line}" for line in CronTimes(entry.cron).calendar(entry.tz))
    return (
        f"# Made by hpo schedule, which replaces it.\n{entry.mark}\n[Unit]\nDescription=A night of hpo\n\n"
        f"[Timer]\n{times}\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n"
    )


def service(entry: Entry) -> str:
    """The service. At its end only hpo itself is asked to stop: it writes the checkpoints of its trials. A trial that
    the kernel ends for want of memory does not end the night, as is systemd's default: hpo tries it again."""
    program, *arguments = entry.argv
    command = " ".join([_quoted(program), *(_quoted(word).replace("$", "$$") for word in arguments)])
    return (
        f"# Made by hpo schedule, which replaces it.\n[Unit]\nDescription=A night of hpo\n\n[Service]\nType=oneshot\n"
        f"KillMode=mixed\nTimeoutStopSec={STOPS_WITHIN_S}\nOOMPolicy=continue\n"
        f"Environment={_quoted(f'HPO_HOME={entry.home}')}\nExecStart={command}\n"
    )


def _quoted(word: str) -> str:
    """A word as systemd reads it: `%` begins what it would fill in."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
