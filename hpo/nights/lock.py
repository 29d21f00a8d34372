"""The lock of the nights of one name: the kernel's, which a dead process cannot keep, and a lease for other machines.

On a local disk `flock` decides. A network file system may not pass it on to other machines: there the lease counts,
which its holder renews. The file says who holds it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hpo.lock import boot_id, taken_lock, waited_lock, write_owner
from trainers.protocol.codec import from_json, to_json

LEASE = datetime.timedelta(minutes=5)
RENEWED_EVERY_S = 60.0
_LOOKS_EVERY_S = 1.0
Clock = Callable[[], datetime.datetime]


@dataclass(frozen=True)
class Holder:
    """Who holds the lock."""

    pid: int
    host: str
    boot: str | None
    """Of the machine since it was started; None where the kernel does not say."""
    since: str
    """ISO time with its offset, like `until`."""
    until: str
    """When the lease ends, unless it is renewed."""

    def is_elsewhere(self, now: datetime.datetime) -> bool:
        """Whether another machine holds a lease that has not ended.

        A container has a host's name of its own, but the boot id of its machine, whose kernel knows all its locks.
        """
        is_here = self.host == socket.gethostname() or (self.boot is not None and self.boot == boot_id())
        return not is_here and datetime.datetime.fromisoformat(self.until) > now

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class Held(Exception):  # no error: the nights are in good hands
    """Another process holds the lock; `holder` is None where the file does not say who."""

    def __init__(self, holder: Holder | None) -> None:
        super().__init__(str(holder or "another process"))
        self.holder = holder


@contextmanager
def night_lock(path: Path, now: Clock, *, waits: bool) -> Iterator[int]:
    """Hold the lock, and yield its file descriptor for child processes to keep.

    Raises `Held` where another process holds it; with `waits` it waits for that one.
    """
    fd = _locked(path, now, waits=waits)
    ended = threading.Event()
    holder = _this_process(now())
    renewal = threading.Thread(target=_renew, args=(fd, holder, now, ended), daemon=True)
    try:
        _write(fd, holder)
        renewal.start()
        yield fd
    finally:
        ended.set()
        if renewal.is_alive():
            renewal.join()
        try:
            _write(fd, Holder(holder.pid, holder.host, holder.boot, holder.since, now().isoformat()))
        finally:
            os.close(fd)


def holder_of(path: Path) -> Holder | None:
    """Who holds the lock, or was the last to; None where the file does not say it."""
    try:
        found = from_json(Holder, json.loads(path.read_text(encoding="utf-8").partition("\n")[2]))
        return found if datetime.datetime.fromisoformat(found.until).tzinfo else None
    except (OSError, ValueError):
        return None


def _locked(path: Path, now: Clock, *, waits: bool) -> int:
    while True:
        fd = waited_lock(path) if waits else taken_lock(path)
        if fd is None:
            raise Held(holder_of(path))
        holder = holder_of(path)
        if holder is None or not holder.is_elsewhere(now()):
            return fd
        os.close(fd)
        if not waits:
            raise Held(holder)
        time.sleep(_LOOKS_EVERY_S)


def _this_process(now: datetime.datetime) -> Holder:
    return Holder(os.getpid(), socket.gethostname(), boot_id(), now.isoformat(), _lease_end(now))


def _lease_end(now: datetime.datetime) -> str:
    """In UTC: a sum of local times would be an hour off where clocks go back."""
    return (now.astimezone(datetime.UTC) + LEASE).isoformat()


def _renew(fd: int, holder: Holder, now: Clock, ended: threading.Event) -> None:
    while not ended.wait(RENEWED_EVERY_S):
        with contextlib.suppress(OSError):  # tried again: a lease outlasts several of these
            _write(fd, Holder(holder.pid, holder.host, holder.boot, holder.since, _lease_end(now())))


def _write(fd: int, holder: Holder) -> None:
    write_owner(fd, f"{json.dumps(to_json(holder))}\n")
