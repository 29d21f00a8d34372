"""`hpo schedule`: `hpo nightly` at given times, by the user's crontab, by systemd, or in the foreground."""

from __future__ import annotations

import datetime
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from hpo.commands.nightly import check_name
from hpo.config.file import load_config
from hpo.config.nightly import Nightly
from hpo.config.sweep_config import SweepConfig
from hpo.databases.studies import FILE_VARIABLE as STUDIES_FILE
from hpo.databases.studies import VARIABLE as STUDIES
from hpo.errors import SweepError, UsageError
from hpo.given_path import given_path
from hpo.lock import exclusive
from hpo.nights.night import night_at
from hpo.nights.record import NightFiles
from hpo.nights.zone import zone_named
from hpo.paths import Home
from hpo.progress_view import ProgressView
from hpo.quoting import listed, quoted
from hpo.schedules.cron_table import Crontab
from hpo.schedules.cron_times import CronTimes, as_on_machine, is_machine_zone
from hpo.schedules.entry import Entry
from hpo.schedules.foreground import call_program, run_at
from hpo.schedules.user_timers import UserTimers, unit_name
from hpo.signals import terminate_as_interrupt
from hpo.tracking.remote.server import VARIABLE as TRACKING
from trainers.protocol.codec import to_json

LOCALTIME = Path("/etc/localtime")
Clock = Callable[[], datetime.datetime]


class Scheduler(Protocol):
    """Runs commands at given times."""

    @property
    def name(self) -> str:
        """As messages call it."""

    @property
    def variables(self) -> str:
        """Where a person writes the environment variables that its commands get."""

    def knows_zones(self) -> bool:
        """Whether times can be those of another zone than the machine's."""

    def entries(self) -> list[Entry]:
        """Those that are ours."""

    def write(self, entries: Sequence[Entry]) -> None:
        """Replace ours."""


def machine_clock() -> datetime.datetime:
    """Now, with the machine's zone."""
    return datetime.datetime.now().astimezone()


def add_schedule(home: Home, file: Path, cron: str, tz: str | None, now: Clock = machine_clock) -> list[str]:
    """Schedule a file, or change when it runs; returns what to say.

    Raises `ConfigError` for a file that no night could run, and `UsageError` where no scheduler of this machine can do
    what is asked.
    """
    times, zone, config = CronTimes.parse(cron), zone_named(tz), _nightly_config(file, home)
    entry = Entry(_absolute(file), times.text, tz, str(home.dir), sys.executable, str(home.schedule_log))
    schedulers = _schedulers()
    chosen = _chosen(schedulers, times, tz, now())
    with exclusive(home.schedule_lock):
        chosen.write([*(other for other in chosen.entries() if other.key != entry.key), entry])
        _remove(entry.key, [scheduler for scheduler in schedulers if scheduler is not chosen])
    due = times.next_after(now(), zone)
    said = (
        f"{entry.file} runs by {chosen.name} at {quoted(times.text)}, next on {due:%Y-%m-%d at %H:%M} ({due.tzname()})"
    )
    lines = [f"its output goes to {entry.log}"]
    if isinstance(chosen, UserTimers):
        lines = [
            f"to see its output: journalctl --user --unit {unit_name(entry)}",
            "systemd stops your timers when you log out; to keep them running, run once: loginctl enable-linger",
        ]
    return [said, *lines, *_missing_variables(config, chosen)]


def _missing_variables(config: SweepConfig, scheduler: Scheduler) -> list[str]:
    """What to say of variables that this shell has or `notify` names, and that a scheduler does not know by itself."""
    notify = config.nightly.notify if config.nightly else None
    names = [name for name in (STUDIES, STUDIES_FILE, TRACKING) if os.environ.get(name)]
    names += [secret.name for secret in (notify.secrets if notify else ()) if secret.source == "env"]
    if not names:
        return []
    return [f"nights do not see the variables of your shell, and need {listed(dict.fromkeys(names))}: write each as "
            f"NAME=VALUE {scheduler.variables}"]  # fmt: skip


def remove_schedule(home: Home, file: Path) -> str:
    """Schedule a file no more; returns what to say. Raises `UsageError` where it was not scheduled."""
    key = (_absolute(file), str(home.dir))
    with exclusive(home.schedule_lock):
        removed = _remove(key, _schedulers())
    if not removed:
        there = [entry.file for _, entry in _all() if entry.home == key[1]]
        known = f"there are: {listed(there)}" if there else "nothing is scheduled in this home"
        raise UsageError(f"{key[0]} is not scheduled; {known}")
    return f"{key[0]} is not in {' and '.join(removed)} any more"


def list_schedules(now: Clock = machine_clock) -> list[dict[str, Any]]:
    """Every scheduled file of this user, of any home, with its next time."""
    return [
        {
            **to_json(entry),
            "by": name,
            "next": CronTimes(entry.cron).next_after(now(), zone_named(entry.tz)).isoformat(),
        }
        for name, entry in _all()
    ]


def show_schedules(view: ProgressView, schedules: Sequence[dict[str, Any]]) -> None:
    """Show what is scheduled in a table, or that nothing is."""
    if not schedules:
        view.say('nothing is scheduled; try: hpo schedule add FILE --cron "0 1 * * *"')
        return
    columns = ["file", "cron", "time zone", "next", "by", "home"]
    rows = [[s["file"], s["cron"], s["tz"] or "-", s["next"][:16].replace("T", " "), s["by"], s["home"]]
            for s in schedules]  # fmt: skip
    view.table("scheduled nights", columns, rows)


def run_schedule(
    home: Home, files: Sequence[Path], cron: str, tz: str | None, say: Callable[[str], None],
    now: Clock = machine_clock, sleep: Callable[[float], None] = time.sleep,
    call: Callable[[Sequence[str]], int] = call_program,
) -> None:  # fmt: skip
    """Run the nights of files whenever they are due, until this process is stopped.

    A night that a stop has cut short continues at once, while it is that night: at the next time it would be another
    date. Raises `ConfigError` for a file that no night could run.
    """
    times, zone = CronTimes.parse(cron), zone_named(tz)
    configs = [_nightly_config(file, home) for file in files]
    nightly = ["nightly", *map(_absolute, files), *(["--tz", tz] if tz else [])]
    command = [sys.executable, "-P", "-m", "hpo", "--home", str(home.dir), *nightly]

    def nights() -> None:
        if (code := call(command)) != 0:
            say(f"hpo nightly ended with {code}")

    with terminate_as_interrupt():
        if any(_is_cut_short(home, config, tz, now()) for config in configs):
            say("a night was cut short; it continues now")
            nights()
        run_at(times, zone, now, sleep, nights, say)


def _nightly_config(file: Path, home: Home) -> SweepConfig:
    """The sweep of a file. Raises `ConfigError` for one that no night could run."""
    config = load_config(file, home)
    check_name(config)
    return config


def _is_cut_short(home: Home, config: SweepConfig, tz: str | None, now: datetime.datetime) -> bool:
    """Whether tonight's run has begun and is not over.

    One of an earlier date waits for the next time: a call before that would begin the next night too early.
    One with a damaged record counts: the call says so to whoever waits for it.
    """
    nightly = config.nightly or Nightly()
    tonight = night_at(config.name, now, zone_named(tz or nightly.tz), nightly.cutoff_time)
    try:
        record = NightFiles(home.nights(config.name)).read(tonight)
    except SweepError:
        return True
    return record is not None and not record.is_over


def _absolute(file: Path) -> str:
    try:
        return str(given_path(file, Path()))
    except ValueError as error:
        raise UsageError(f"{quoted(str(file))}: {error}; expected the path of a YAML file") from error


def _schedulers() -> list[Scheduler]:
    """Those of this machine; a crontab comes first."""
    found: list[Scheduler] = []
    if crontab := shutil.which("crontab"):
        found.append(Crontab(crontab))
    if systemctl := shutil.which("systemctl"):
        timers = UserTimers.at(systemctl, dict(os.environ))
        if timers.is_running():
            found.append(timers)
    return found


def _chosen(schedulers: Sequence[Scheduler], times: CronTimes, tz: str | None, now: datetime.datetime) -> Scheduler:
    """The first that can do it. Raises `UsageError` where none can."""
    if not schedulers:
        raise UsageError("this machine has neither crontab nor systemd for this user; in a container, let "
                         "`hpo schedule run` be its program")  # fmt: skip
    for scheduler in schedulers:
        if tz is None or is_machine_zone(tz, now.year) or scheduler.knows_zones():
            return scheduler
    raise UsageError(f"the cron of this machine does not know time zones, and {tz} is not its own; "
                     + _way_without_zones(times, str(tz), now.year))  # fmt: skip


def _way_without_zones(times: CronTimes, tz: str, year: int) -> str:
    """What a person can do whose cron knows no time zones."""
    if (other := as_on_machine(times, tz, year)) is None:
        return "give the times of this machine's zone, without --tz"
    return (
        f"write --cron {quoted(other)} without --tz, and nightly: {{tz: {tz}}} in the file; in each season one of "
        "these is that time there, and a second call in one night finds nothing to do"
    )


def _remove(key: tuple[str, str], schedulers: Sequence[Scheduler]) -> list[str]:
    """Take an entry out of schedulers, and return the names of those that had it."""
    had = []
    for scheduler in schedulers:
        entries = scheduler.entries()
        if any(entry.key == key for entry in entries):
            scheduler.write([entry for entry in entries if entry.key != key])
            had.append(scheduler.name)
    return had


def _all() -> list[tuple[str, Entry]]:
    return [(scheduler.name, entry) for scheduler in _schedulers() for entry in scheduler.entries()]
