"""`hpo stop`: Ctrl-C for a sweep that runs elsewhere."""

from __future__ import annotations

import os
import signal
import time

from hpo.errors import SweepError, UsageError
from hpo.lock import is_locked, lock_owner, owner_elsewhere
from hpo.paths import Home
from hpo.quoting import listed
from hpo.study.one_writer import holders_of_leases
from hpo.study.store import study_names

STOPS_WITHIN_S = 180.0


def stop_sweep(home: Home, name: str, *, now: bool = False) -> str:
    """Signal the sweep's process and wait until it and all its children are gone; returns what to tell.

    Raises `UsageError` for a sweep that does not exist, does not run or runs on another machine or in another
    container, `SweepError` when it does not stop.
    """
    lock = home.sweep(name).lock
    if not is_locked(lock):
        names = study_names(home.studies_db)
        if name not in names:
            raise UsageError(
                f"no sweep {name!r}; " + (f"there are: {listed(names)}" if names else "there are none yet")
            )
        if holder := holders_of_leases(home).get(name):
            raise UsageError(f"sweep {name!r} runs elsewhere: {holder}; stop it there")
        raise UsageError(f"sweep {name!r} is not running")
    if elsewhere := owner_elsewhere(lock):  # its number is another process here
        raise UsageError(f"sweep {name!r} runs elsewhere: {elsewhere}; stop it there")
    owner = lock_owner(lock)
    # A sweep takes them alike. Two of one kind are one for a process that has no turn between them.
    for number in (signal.SIGINT, signal.SIGTERM) if now else (signal.SIGINT,):
        try:
            os.kill(owner, number)
        except ProcessLookupError:
            break  # it is ending already; its children hold the lock a moment longer
        time.sleep(0.2)
    deadline = time.monotonic() + STOPS_WITHIN_S
    while is_locked(lock):
        if time.monotonic() > deadline:
            way = f"kill -9 {owner} ends it" if now else f"hpo stop {name} --now ends it"
            late = f"has not stopped after {STOPS_WITHIN_S:.0f} seconds; {way}, and hpo sweep continues it"
            raise SweepError(f"sweep {name!r} (process {owner}) {late}")
        time.sleep(0.1)
    return f"{name} is stopped; hpo sweep continues it"
