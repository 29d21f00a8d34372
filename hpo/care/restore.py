"""A home made of a backup: every hash first, then all files beside their places, and into them at the end."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from hpo.care.manifest import CONTENT, STUDIES, Manifest, check_backup, read_manifest
from hpo.errors import HpoError, UsageError
from hpo.paths import Home, SweepPaths
from hpo.quoting import listed
from hpo.sqlite import usable
from hpo.studies_database import StudiesDatabase
from hpo.study.copies import copy_studies, sweeps_in
from hpo.tracking.mlflow_places import follow_move
from trainers.protocol.files import sync_folder

_SCRATCH = ".restored"
_LAST = ("mlflow.db", STUDIES)
"""Moved after all files: a home with a study has what the study stands on."""


@dataclass(frozen=True)
class Restored:
    """What a home has now."""

    home: str
    manifest: Manifest
    sweeps: list[str]
    studies: str
    """Where they are."""


def restore_backup(home: Home, backup: Path) -> Restored:
    """Put a backup into an empty home, and its studies where the home has them: in a file or on a server.

    Raises `UsageError` for what is no backup and for a home or server that is not empty, `HpoError` for a backup that
    is damaged or of a later version. Then nothing of the backup is in the home.
    """
    manifest = read_manifest(backup)
    _check_empty(home)
    check_backup(backup, manifest)
    scratch, studies = home.dir / _SCRATCH, home.studies_db
    shutil.rmtree(scratch, ignore_errors=True)  # a kill left it
    try:
        scratch.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(backup / CONTENT, scratch)
        os.sync()
        _move_studies(scratch, manifest.server, studies)
        entries = sorted(scratch.iterdir(), key=lambda entry: (entry.name in _LAST, entry.name))
        for entry in entries:
            entry.rename(home.dir / entry.name)
        sync_folder(home.dir)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if usable(home.mlflow_db):
        follow_move(home)
    return Restored(str(home.dir), manifest, sorted(sweeps_in(studies)), str(studies))


def _move_studies(scratch: Path, before: str, studies: StudiesDatabase) -> None:
    """Put the studies where the new home has them, and say so in the folders of their sweeps."""
    copy = StudiesDatabase.in_file(scratch / STUDIES)
    names = sweeps_in(copy)
    for folder in (scratch / "sweeps").glob("*"):
        mark = SweepPaths(folder).studies
        known = mark.read_text(encoding="utf-8").strip() if mark.exists() else ""
        if folder.name in names and known == before:  # else it is of a study in yet another database
            mark.unlink(missing_ok=True)
            if studies.file is None:
                mark.write_text(f"{studies.address}\n", encoding="utf-8")
    if studies.file is None and copy.file and copy.file.exists():
        copy_studies(copy, studies)
        copy.file.unlink()


def _check_empty(home: Home) -> None:
    """Raises `UsageError` where files are in the way."""
    try:
        found = [entry.name for entry in home.dir.iterdir() if entry.name not in (".gitkeep", "cache", _SCRATCH)]
    except FileNotFoundError:
        return
    except OSError as error:
        raise HpoError(f"home {home.dir}: cannot be read: {error.strerror}") from error
    if found:
        raise UsageError(f"home {home.dir}: is not empty ({listed(sorted(found))}); nothing was restored; "
                         "hpo restore BACKUP --home NEW makes another one")  # fmt: skip
