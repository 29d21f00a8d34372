"""A folder copied while others write in it: every file whole, and no folder with a part of what it had at any moment.

Who writes in a home puts files and folders in place by rename, and removes them file by file. So a folder is looked at
again after its copy: what has been replaced or removed meanwhile is copied anew or dropped, until nothing has. Files
that only grow are copied as far as they are there. SQLite's files are copied by its online backup, in one step.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from hpo.databases.sqlite import SQLITE_MAGIC
from hpo.errors import HpoError, SweepError
from hpo.remedies import way_on
from trainers.protocol.files import file_hash

LOOKS = 50
"""At most so many times is a folder looked at; each time only what is new in it is copied."""
_CHUNK = 1 << 20
_SCRATCH = re.compile(r"\..*\.(tmp|new|old|deleted)|.*\.db-(journal|wal|shm)")
"""Files and folders on their way to another name or to nothing, and those of open databases."""
_TOP = PurePosixPath()
_Entry = tuple[int, bool]
"""A name's inode, and whether it is a folder."""


@dataclass(frozen=True)
class FileEntry:
    """A file that was copied."""

    path: str
    """Below the folder, with slashes."""
    size: int
    """Bytes."""
    sha256: str


@dataclass
class TreeCopy:
    """The copy of `source` in `target`; `skips` says of which paths nothing is copied."""

    source: Path
    target: Path
    skips: Callable[[PurePosixPath], bool] = lambda path: False
    earlier: Path | None = None
    """An earlier copy: a file that has not changed since is linked to the one there."""
    earlier_hashes: dict[str, str] = field(default_factory=dict)
    """Path -> SHA-256 of the files there."""
    files: dict[str, FileEntry] = field(default_factory=dict)
    """By path, as far as they are copied."""

    def copy(self, folder: PurePosixPath = _TOP) -> None:
        """Copy a folder. Raises `SweepError` where it changes faster than it can be copied, `FileNotFoundError` where
        it goes meanwhile."""
        (self.target / folder).mkdir(parents=True, exist_ok=True)
        copied: dict[str, _Entry] = {}
        for _ in range(LOOKS):
            now = self._entries(folder)
            if now == copied:
                return
            for name in [name for name, entry in copied.items() if now.get(name) != entry]:
                self._drop(folder / name)
                del copied[name]
            for name in now.keys() - copied.keys():
                try:
                    if now[name][1]:
                        self.copy(folder / name)
                    else:
                        self.copy_file(folder / name)
                    copied[name] = now[name]
                except FileNotFoundError:  # it went meanwhile: the next look sees that
                    self._drop(folder / name)
        raise SweepError(
            f"{self.source / folder} changes faster than it can be copied; try again when less is going on"
        )

    def copy_file(self, path: PurePosixPath) -> None:
        """Copy one file. Raises `FileNotFoundError` where it is not there, `HpoError` for a damaged database."""
        source, target = self.source / path, self.target / path
        target.parent.mkdir(parents=True, exist_ok=True)  # some files are copied before their folders
        with source.open("rb") as file:
            stamp = os.fstat(file.fileno())
            if file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC:
                copy_database(source, target)
                self.add(str(path))
                return
            if known := self._linked(path, stamp):
                size, content = stamp.st_size, known
            else:
                file.seek(0)
                digest, size = hashlib.sha256(), 0
                with target.open("wb") as copy:
                    while chunk := file.read(_CHUNK):
                        digest.update(chunk)
                        size += copy.write(chunk)
                content = digest.hexdigest()
                os.chmod(target, stat.S_IMODE(stamp.st_mode))
                os.utime(target, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        self.files[str(path)] = FileEntry(str(path), size, content)

    def add(self, path: str) -> None:
        """Count a file of `target` that someone else has written."""
        file = self.target / path
        self.files[path] = FileEntry(path, file.stat().st_size, file_hash(file))

    def _linked(self, path: PurePosixPath, stamp: os.stat_result) -> str | None:
        """The hash of a file that is now linked to the earlier copy; None where it has changed since."""
        known = self.earlier_hashes.get(str(path))
        if self.earlier is None or known is None:
            return None
        before = self.earlier / path
        if not before.is_file():
            return None
        there = before.stat()
        if (there.st_size, there.st_mtime_ns) != (stamp.st_size, stamp.st_mtime_ns):
            return None
        os.link(before, self.target / path)
        return known

    def _entries(self, folder: PurePosixPath) -> dict[str, _Entry]:
        """What is to be copied of a folder now. Links to files are files. Links to folders lead elsewhere, but not
        those at the top and right below it: people put a part of a home, or one sweep, on another disk."""
        found = {}
        with os.scandir(self.source / folder) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=len(folder.parts) < 2)
                is_wanted = (is_folder or entry.is_file()) and not _SCRATCH.fullmatch(entry.name)
                if is_wanted and not self.skips(folder / entry.name):
                    found[entry.name] = (entry.inode(), is_folder)
        return found

    def _drop(self, path: PurePosixPath) -> None:
        """Take back what was copied of a file or folder."""
        if (copy := self.target / path).is_dir():
            shutil.rmtree(copy)
            for name in [name for name in self.files if name.startswith(f"{path}/")]:
                del self.files[name]
        else:
            copy.unlink(missing_ok=True)
            self.files.pop(str(path), None)


def copy_database(source: Path, target: Path) -> None:
    """A SQLite database as it is at one moment; who writes in it waits meanwhile.

    In one step: one of many would begin anew with every write of another process, and might never end.
    Raises `HpoError` where the database is damaged, or the copy cannot be written.
    """
    target.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(source)) as database, closing(sqlite3.connect(target)) as copy:
            database.backup(copy, pages=-1)
    except sqlite3.Error as error:
        raise HpoError(f"{source}: cannot be copied to {target}: {error}; {way_on(error)}") from error
