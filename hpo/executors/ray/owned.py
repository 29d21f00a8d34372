"""Folders that go with a process: those of a killed one are removed by the next one that starts."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable
from pathlib import Path


def own(folder: Path) -> int:
    """Say that a folder is this process's, until it closes what this returns: a file that it holds locked."""
    fd = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    (folder / ".lock").rename(folder / "lock")  # locked before anybody finds it
    return fd


def remove_left(folders: Iterable[Path]) -> None:
    """Remove this user's folders that a process has owned which is gone."""
    for folder in folders:
        try:
            if folder.lstat().st_uid != os.getuid():
                continue
            fd = os.open(folder / "lock", os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue  # it is being made, or removed
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(fd)
