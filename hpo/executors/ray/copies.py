"""A folder of a trial on a node, brought to this machine: only what is new, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from hpo.executors.ray.content import PIECE
from trainers.protocol.files import TrialPaths, replace_folder

Stamp = tuple[int, int, int]
"""Size, time of the last change and inode of a file on a node: as long as they are equal, so is its content."""
Read = Callable[[str, int, int], bytes]
"""Bytes of a node's file: path, where they begin, how many at most."""


class Incomplete(Exception):
    """A file on a node, by its name, ended before all of it was here: the node is just ending."""


class FolderCopy:
    """The folder `here` follows the folder `there` of a node. `known` has the stamps of what both have already.

    A killed sweep never leaves half a checkpoint: each one, and the adapter, is fetched aside and renamed.
    """

    def __init__(self, here: Path, there: str, known: Mapping[str, Stamp]) -> None:
        self.here = here
        self.there = there
        self._known = dict(known)

    def bring(self, now: Mapping[str, Stamp], read: Read) -> None:
        """Fetch what is new in `now`, by name, and remove what was known and is gone.

        Raises `Incomplete`, and `OSError` where this machine's disk is full.
        """
        changed = {name for name, stamp in now.items() if self._known.get(name) != stamp}
        gone = self._known.keys() - now.keys()
        units: defaultdict[str, list[str]] = defaultdict(list)
        for name in now:
            units[_unit(name)].append(name)
        touched = {_unit(name) for name in changed | gone}
        for unit, names in units.items():
            if unit in touched:
                self._bring_unit(unit, names, now, read)
        for unit in touched - units.keys():
            _remove(self.here / unit)
        self._known = dict(now)

    def _bring_unit(self, unit: str, names: list[str], now: Mapping[str, Stamp], read: Read) -> None:
        target = self.here / unit
        scratch = target.with_name(f".{target.name}.fetched")
        _remove(scratch)
        scratch.parent.mkdir(parents=True, exist_ok=True)
        if names == [unit]:
            self._bring_file(unit, scratch, now[unit], read)
            scratch.replace(target)
            return
        for name in names:
            file = scratch / PurePosixPath(name).relative_to(unit)
            file.parent.mkdir(parents=True, exist_ok=True)
            self._bring_file(name, file, now[name], read)
            sync(file)
        replace_folder(scratch, target)

    def _bring_file(self, name: str, target: Path, stamp: Stamp, read: Read) -> None:
        """Link a file that is here already, under whatever name; else fetch it."""
        for known, same in self._known.items():
            if same == stamp and (self.here / known).is_file():
                os.link(self.here / known, target)
                return
        with target.open("wb") as file:
            while (missing := stamp[0] - file.tell()) > 0:
                piece = read(f"{self.there}/{name}", file.tell(), min(PIECE, missing))
                if not piece:
                    raise Incomplete(name)
                file.write(piece)


def _unit(name: str) -> str:
    """What appears as a whole: a checkpoint, the adapter, any other file by itself."""
    paths = TrialPaths(Path())
    first, *rest = name.split("/")
    if first == paths.checkpoints.name and len(rest) > 1:
        return f"{first}/{rest[0]}"
    return first if first == paths.adapter.name else name


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have a file on the disk before the name that it gets."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
