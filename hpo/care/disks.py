"""The disks of a home: free space, and what a home needs of its file system, each tried out."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hpo.care.finding import Finding
from hpo.paths import Home
from trainers.protocol.files import sync_folder

LITTLE_GB, SHORT_GB = 1.0, 10.0
_SHARED = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "fuse.sshfs")
"""File systems of several machines."""


def look_at_disks(home: Home, *, has_studies: bool) -> Iterator[Finding]:
    """The disk of the home, which may have the studies, and those of its largest parts where they are others."""
    place = _existing(home.dir)
    yield _space("disk of the home", place)
    seen = {place.stat().st_dev}
    for folder in (home.cache, home.sweeps, home.artifacts):  # people put one on another disk, by a link
        part = _existing(folder)
        if (device := part.stat().st_dev) not in seen:
            seen.add(device)
            yield _space(f"disk of {folder.name}", part)
    if not os.access(place, os.W_OK):
        yield Finding(
            "problem", "home", f"{place} cannot be written", "give yourself permission, or choose another --home"
        )
        return
    yield from _file_system(place, has_studies=has_studies)


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())


def _space(what: str, place: Path) -> Finding:
    usage, files = shutil.disk_usage(place), os.statvfs(place)
    free = usage.free / 1e9
    found = f"{free:,.1f} GB free of {usage.total / 1e9:,.1f} GB ({place})"
    if files.f_files and files.f_favail < files.f_files // 100:
        return Finding("problem", what, f"{found}; only {files.f_favail:,} more files fit", "delete files: hpo gc")
    if free < LITTLE_GB:
        return Finding("problem", what, found, "make room: hpo gc --dry-run says what can go")
    return (
        Finding("note", what, found, "hpo gc --dry-run says what can go")
        if free < SHORT_GB
        else Finding("ok", what, found)
    )


def _file_system(place: Path, *, has_studies: bool) -> Iterator[Finding]:
    kind = file_system_of(place)
    with tempfile.TemporaryDirectory(prefix=".hpo-doctor-", dir=place) as scratch:
        missing = [name for name, works in _NEEDED.items() if not _tried(works, Path(scratch))]
    if missing:
        yield Finding("problem", "file system", f"{kind} without {', '.join(missing)}",
                      "choose a --home on a local disk: sweeps would not be safe here")  # fmt: skip
    elif kind in _SHARED:
        way = "set HPO_STUDIES to a PostgreSQL database" if has_studies else "use it from one machine at a time"
        yield Finding("note", "file system", f"{kind} of several machines: SQLite's locks may not hold between them",
                      f"choose a --home on a local disk, or {way}")  # fmt: skip
    else:
        yield Finding("ok", "file system", f"{kind}; {', '.join(_NEEDED)} work")


def file_system_of(place: Path) -> str:
    """The kind of the file system that a path is on, as the kernel names it."""
    found, kind = Path("/"), "unknown"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split()
        mount = Path(fields[4].replace("\\040", " "))
        if place.is_relative_to(mount) and mount.is_relative_to(found):
            found, kind = mount, fields[fields.index("-") + 1]
    return kind


def _tried(works: Callable[[Path], bool], folder: Path) -> bool:
    try:
        return works(folder)
    except OSError:
        return False


def _locks(folder: Path) -> bool:
    """Whether one lock keeps out another, as two openings of one file."""
    with (folder / "lock").open("w") as first, (folder / "lock").open("w") as second:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _links(folder: Path) -> bool:
    (folder / "file").touch()
    os.link(folder / "file", folder / "link")
    return (folder / "link").samefile(folder / "file")


def _renames(folder: Path) -> bool:
    (folder / "old").write_text("old")
    (folder / "new").write_text("new")
    (folder / "new").replace(folder / "old")
    sync_folder(folder)
    return (folder / "old").read_text() == "new"


_NEEDED: dict[str, Callable[[Path], bool]] = {
    "locks (flock)": _locks, "hard links": _links, "replacing by rename": _renames,
}  # fmt: skip
