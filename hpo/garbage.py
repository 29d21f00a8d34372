"""Files that nobody needs: how large they are, and how they go, so that a kill half-way leaves nothing half-deleted."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_DOOMED = ".{}.deleted"


@dataclass(frozen=True)
class Garbage:
    """Something that can go."""

    kind: str
    """In the plural, for people: `releases without an alias`."""
    size_bytes: int
    """On disk."""
    free: Callable[[], None]
    """Deletes it; doing so again, after a kill, is no error."""


def size_of(paths: Iterable[Path]) -> int:
    """Bytes of files and of all files in folders; links count as nothing, and so does what is not there."""
    total = 0
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            for folder, _, names in os.walk(path):
                total += sum(_bytes(Path(folder, name)) for name in names)
        else:
            total += _bytes(path)
    return total


def discard(path: Path) -> None:
    """Delete a file or folder, which is renamed first: it is there as a whole or not at all."""
    doomed = path.with_name(_DOOMED.format(path.name))
    for place in (doomed, path):  # what an earlier call left, then this
        if place == path and os.path.lexists(path):
            path.rename(doomed)
        if doomed.is_dir() and not doomed.is_symlink():
            shutil.rmtree(doomed)
        else:
            doomed.unlink(missing_ok=True)


def half_deleted(folder: Path) -> list[Path]:
    """What a kill left of `discard`, anywhere below a folder, and in parts of it that a link puts on another disk."""
    linked = [path for path in folder.glob("*") if path.is_symlink()]
    return sorted(found for top in (folder, *linked) for found in top.rglob(_DOOMED.format("*")))


def _bytes(path: Path) -> int:
    try:
        found = path.lstat()
    except FileNotFoundError:  # it has just gone
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
