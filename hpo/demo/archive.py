"""The archive of a demo model or data set: its hash, and the files that are taken out of it."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from hpo.errors import FetchError


def sha256_of(path: Path) -> str:
    """Of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def extract(archive: Path, members: Mapping[str, str], folder: Path) -> None:
    """Copy members of a zip or tar file to `folder`; `members` maps their names to file names there.

    Raises `FetchError` when a member is missing or not a regular file. It also refuses an archive in which any name is
    a path outside of the folder: such an archive is not trusted.
    """
    opened = _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive)
    missing = dict(members)
    for name, source in opened:
        if _escapes(name):
            raise FetchError(f"refused {archive.name}: it contains a path outside of its folder: {name!r}")
        if name in missing and source is not None:
            with source, (folder / missing.pop(name)).open("wb") as target:
                shutil.copyfileobj(source, target)
    if missing:
        raise FetchError(f"{archive.name} does not contain {', '.join(missing)}")


def _escapes(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in name


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            yield info.orig_filename, None if info.is_dir() else file.open(info)


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with tarfile.open(archive) as file:
        for info in file:
            yield info.name, file.extractfile(info) if info.isfile() else None
