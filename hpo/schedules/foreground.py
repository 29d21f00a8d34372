"""A scheduler in the foreground, for containers: it waits for the next time, runs the nights, and waits again."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Callable, Sequence

from hpo.schedules.cron_times import CronTimes

LONGEST_WAIT_S = 60.0
"""Of one sleep: a clock that is set, or a machine that slept, is noticed within it."""
Clock = Callable[[], datetime.datetime]


def run_at(
    times: CronTimes, zone: datetime.tzinfo, now: Clock, sleep: Callable[[float], None], call: Callable[[], None],
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """Call at every time that is due, for ever. What comes due during a call is left out: the night knows what it
    missed."""
    due = _next(times, zone, now(), say)
    while True:
        if (left := (due - now()).total_seconds()) > 0:
            sleep(min(left, LONGEST_WAIT_S))
            continue
        call()
        due = _next(times, zone, now(), say)


def call_program(argv: Sequence[str]) -> int:
    """Run a program to its end, and return its exit code.

    It is in a session of its own, so Ctrl-C reaches it once, as a wish to stop, and so does each further one.
    """
    process = subprocess.Popen(argv, start_new_session=True)
    wish: KeyboardInterrupt | None = None
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt as error:
            wish = error
            process.terminate()
        else:
            break
    if wish is not None:
        raise wish
    return code


def _next(
    times: CronTimes, zone: datetime.tzinfo, moment: datetime.datetime, say: Callable[[str], None]
) -> datetime.datetime:
    due = times.next_after(moment, zone)
    say(f"the next night is due on {due:%Y-%m-%d at %H:%M} ({due.tzname()})")
    return due
