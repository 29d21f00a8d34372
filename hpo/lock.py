"""Locks: one process per sweep, which its trial host and their children inherit; a critical section in a home; files
that are in use.

The kernel releases a `flock` when the last process that holds the file ends. So a restarted sweep begins only when the
last orphan of the old one is gone, and no stale lock is left behind.

A lock file is unlinked only by a process that holds it alone (`remove_unheld`). A process that waited for the unlinked
file notices that, and locks the file that is at the path now: two processes never hold two files of one path.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hpo.errors import SweepError

ORPHANS_END_WITHIN_S = 10.0
_CHILDREN_END_WITHIN_S = 2.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def sweep_lock(path: Path) -> Iterator[int]:
    """Hold the lock of a sweep, and yield its file descriptor for `pass_fds`.

    Raises `SweepError` when another process holds it.
    """
    fd = taken_lock(path)
    if fd is None:
        owner = path.read_text().partition("\n")[0] if path.exists() else ""
        name = path.parent.name
        held = f"is already running (process {owner or 'unknown'}; {path})"
        raise SweepError(f"sweep {name!r} {held}; wait for its end, or: hpo stop {name}")
    try:
        import socket  # late: who only looks at a lock does without

        write_owner(fd, f"{this_machine()}\n{socket.gethostname()}\n")
        yield fd
    finally:
        os.close(fd)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait until no other process is in this block with the same path, and hold the lock while inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def held_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock while inside and yield True, or yield False where another process holds it."""
    with path.open("w") as file:
        yield _take(file.fileno())


def hold_shared(path: Path) -> int:
    """Say that this process uses a file or folder, as others may too, until it ends; returns the file descriptor that
    says so."""
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def hold_if_there(path: Path) -> int | None:
    """The same of a file or folder that others may remove (`held_alone`); None where it is gone."""
    with contextlib.suppress(FileNotFoundError):
        fd = hold_shared(path)
        if _is_at(fd, path):
            return fd
        os.close(fd)
    return None


@contextmanager
def held_alone(path: Path) -> Iterator[bool]:
    """Hold a file or folder while inside and yield True, or yield False where it is in use or gone."""
    try:
        fd = _opened(path)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _take(fd) and _is_at(fd, path)
    finally:
        os.close(fd)


def is_in_use(path: Path) -> bool:
    """Whether some process uses a file or folder (`hold_shared`); False where there is none."""
    return _is_refused(path, fcntl.LOCK_EX)


def users_of(path: Path) -> list[int]:
    """Ids of the processes that use a file (`hold_shared`), as the kernel lists them; it does not list those of other
    containers, nor on every file system."""
    try:
        stat, lines = path.stat(), Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    place = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
    held = [line.split() for line in lines if " FLOCK " in line and "->" not in line]
    return sorted({int(fields[4]) for fields in held if fields[5] == place and int(fields[4]) > 0})


def remove_unheld(path: Path) -> None:
    """Remove a lock file with its folder and all that is in it, unless a process holds the lock; then all stays.

    Children of this process that are about to end are waited for, up to `_CHILDREN_END_WITHIN_S` seconds.
    """
    try:
        fd = _opened(path)
    except FileNotFoundError:
        return
    try:
        deadline = time.monotonic() + _CHILDREN_END_WITHIN_S
        while not _take(fd):
            if _owner(fd) != str(os.getpid()) or time.monotonic() > deadline:
                return
            time.sleep(0.1)
        if _is_at(fd, path):
            _remove_folder(path)
    finally:
        os.close(fd)


def _remove_folder(lock: Path) -> None:
    """Remove what is in the folder, the lock last: until then nobody else works in it."""
    for entry in lock.parent.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry != lock:
            entry.unlink()
    lock.unlink()
    with contextlib.suppress(OSError):  # a new process may have put its own lock there
        lock.parent.rmdir()


def taken_lock(path: Path) -> int | None:
    """A file descriptor that holds the lock of the file that is at `path` now; None where another process holds it.

    Orphans of a process that has ended are waited for, up to `ORPHANS_END_WITHIN_S` seconds.
    """
    return _locked(path, _acquire)


def waited_lock(path: Path) -> int:
    """A file descriptor that holds the lock of the file that is at `path` now, however long others hold it."""
    fd = _locked(path, _wait)
    assert fd is not None  # noqa: S101  # `_wait` never gives up
    return fd


def write_owner(fd: int, more: str = "") -> None:
    """Write this process into the lock file that it holds, and what readers may know besides."""
    text = f"{os.getpid()}\n{more}".encode()
    os.pwrite(fd, text, 0)
    os.ftruncate(fd, len(text))


def _locked(path: Path, acquire: Callable[[int], bool]) -> int | None:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            is_taken = acquire(fd)
        except BaseException:
            os.close(fd)
            raise
        if is_taken and _is_at(fd, path):
            return fd
        os.close(fd)  # another process has it, or it was removed while this one waited for it
        if not is_taken:
            return None


def _opened(path: Path) -> int:
    """A file or folder, opened so that it can be held alone: on NFS only what is open for writing can be."""
    is_writable = path.is_file() and os.access(path, os.W_OK)
    return os.open(path, os.O_RDWR if is_writable else os.O_RDONLY)


def _is_at(fd: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`."""
    return path.exists() and os.path.samestat(os.fstat(fd), path.stat())


def _acquire(fd: int) -> bool:
    """Take the lock, or return False where a living process holds it, or orphans do not end."""
    deadline = time.monotonic() + ORPHANS_END_WITHIN_S
    while not _take(fd):
        if ((owner := _owner(fd)).isdigit() and is_alive(int(owner))) or time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _wait(fd: int) -> bool:
    fcntl.flock(fd, fcntl.LOCK_EX)
    return True


def _take(fd: int) -> bool:
    """Take the lock, or return False where another process holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(fd: int) -> str:
    return os.pread(fd, 32, 0).decode(errors="replace").partition("\n")[0].strip()


def is_alive(pid: int) -> bool:
    """Whether this machine has the process; `/proc` may hide those of other users."""
    try:
        with contextlib.suppress(PermissionError):  # it is there, of another user
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def lock_owner(path: Path) -> int:
    """The id of the process that holds the lock, or was the last to. Raises `ValueError` where the file names none."""
    return int(path.read_text().split()[0])


def owner_elsewhere(path: Path) -> str | None:
    """The process that holds a sweep's lock as `process PID on HOST`, where it is not of this machine or container."""
    pid, machine, host, *_ = [*path.read_text().splitlines(), "", "", ""]
    return f"process {pid} on {host}" if machine not in ("", this_machine()) else None


def this_machine() -> str:
    """This machine since its start, and the part of it whose processes see each other: a container is another one."""
    space = Path("/proc/self/ns/pid")
    return f"{boot_id()} {os.readlink(space) if space.is_symlink() else ''}"


def boot_id() -> str | None:
    """The kernel's name for the time since this machine was started; None where it has none."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else None


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock now; creates no file and keeps no lock."""
    return _is_refused(path, fcntl.LOCK_SH)


def _is_refused(path: Path, kind: int) -> bool:
    """Whether a lock of that kind is refused; False where there is no such file."""
    try:
        fd = _opened(path) if kind == fcntl.LOCK_EX else os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)
