"""Whether the files that a sweep reads are still the same ones, without reading them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpo.config.sweep_config import SweepConfig
from trainers.protocol.codec import fingerprint
from trainers.protocol.trial_spec import SourceRef

_COMMIT = re.compile(r"[0-9a-f]{40}")


def sources_now(config: SweepConfig) -> str | None:
    """A hash of path, size, inode and times of every file that the rows come from; None where that says nothing: a
    source of the hub without a commit, or a file that is not there."""
    found: list[Sequence[object]] = []
    for source in config.data.sources().values():
        if source.is_hub:
            if not _COMMIT.fullmatch(source.revision or ""):
                return None
            found.append([source.source, source.config, source.revision])
        elif (files := _stats(_files_of(source))) is None:
            return None
        else:
            found += files
    return fingerprint(found)


def model_now(config: SweepConfig) -> str:
    """The same of the base model; of one of the hub, its name and revision."""
    place = Path(config.model.source)
    files = _stats(_below(place)) if place.is_absolute() else None
    return fingerprint([config.model.source, config.model.revision, config.model.adapter, files])


def _files_of(source: SourceRef) -> Iterator[Path]:
    if source.files:
        yield from map(Path, source.files)
        return
    place = Path(source.source)
    if place.exists() or not glob.has_magic(str(place)):
        yield from _below(place)
        return
    for match in map(Path, sorted(glob.glob(str(place), recursive=True))):
        if not ("**" in place.parts and match.is_dir()):  # its files match by themselves
            yield from _below(match)


def _below(place: Path) -> Iterator[Path]:
    """The file, or all files below a folder that are not hidden; links are followed, and no folder twice in a loop."""
    if not place.is_dir():
        yield place
        return
    seen: set[str] = set()
    for parent, folders, files in os.walk(place, followlinks=True):
        seen.add(os.path.realpath(parent))
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith((".", "__")) and os.path.realpath(os.path.join(parent, name)) not in seen
        ]
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def _stats(files: Iterator[Path]) -> list[list[object]] | None:
    """None where a file is not there, or there is none."""
    try:
        stats = [(path, path.stat()) for path in files]
    except OSError:
        return None
    return [[str(path), s.st_size, s.st_ino, s.st_mtime_ns, s.st_ctime_ns] for path, s in stats] or None
