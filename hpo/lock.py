"""One process per sweep: a lock that the trial host and its children inherit; and a moment alone in the home.

The kernel drops a `flock` when the last process that holds the file ends, so a restarted sweep begins only when the
last orphan of the old one is gone, and no stale lock is ever left behind.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpo.errors import SweepError

ORPHANS_END_WITHIN_S = 10.0


@contextmanager
def sweep_lock(path: Path) -> Iterator[int]:
    """Hold the lock; yields its file descriptor for `pass_fds`. Raises `SweepError` when another sweep holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(fd, path)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield fd
    finally:
        os.close(fd)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait until no other process is inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _acquire(fd: int, path: Path) -> None:
    deadline = time.monotonic() + ORPHANS_END_WITHIN_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, 32, 0).decode().strip()
            if _is_alive(owner) or time.monotonic() > deadline:
                raise SweepError(f"this sweep is already running (process {owner or 'unknown'}; {path})") from None
            time.sleep(0.1)
        else:
            return


def _is_alive(pid: str) -> bool:
    return pid.isdigit() and Path(f"/proc/{pid}").exists()


def lock_owner(path: Path) -> int:
    """The process that holds the lock. Raises `ValueError` when nobody has ever held it."""
    return int(path.read_text().split()[0])


def is_locked(path: Path) -> bool:
    """Whether a sweep is running now."""
    if not path.exists():
        return False
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)
