"""A home made of a backup: every hash first, then all files beside their places, and into them at the end."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from hpo.care.manifest import CONTENT, OWN_STUDIES, STUDIES, Manifest, check_backup, read_manifest
from hpo.databases.migrations import optuna_migrations
from hpo.databases.sqlite import usable
from hpo.databases.studies import StudiesDatabase
from hpo.errors import HpoError, UsageError
from hpo.paths import Home, SweepPaths
from hpo.quoting import clipped, listed
from hpo.remedies import way_on
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
    is damaged or of a later version, or where the disk or the server fails. Then nothing of the backup is in the home.
    """
    manifest = read_manifest(backup)
    _check_empty(home)
    _check_studies(manifest, home.studies_db)
    check_backup(backup, manifest)
    scratch, studies = home.dir / _SCRATCH, home.studies_db
    try:
        shutil.rmtree(scratch, ignore_errors=True)  # a kill left it
        scratch.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(backup / CONTENT, scratch)
        os.sync()
        _mark_sweeps(scratch, manifest.server, studies)
        _check_empty(home)  # a large backup takes its time
        _move(scratch, home)
    except (OSError, shutil.Error) as error:
        raise HpoError(f"home {home.dir}: nothing was restored: {clipped(str(error), 300)}; {way_on(error)}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if usable(home.mlflow_db):
        follow_move(home)
    return Restored(str(home.dir), manifest, sorted(sweeps_in(studies)), str(studies))


def _check_studies(manifest: Manifest, studies: StudiesDatabase) -> None:
    """Raises `UsageError` where the studies cannot be put where the home has them."""
    if studies.file is not None:
        if OWN_STUDIES in manifest.schemas:
            raise UsageError(f"this backup has studies of {manifest.server} and of the home's own file; nothing was "
                             "restored: let HPO_STUDIES name an empty database for the former")  # fmt: skip
        return
    if sweeps_in(studies):
        raise UsageError(f"{studies}: has studies already; expected a database without any")
    if STUDIES in manifest.schemas and optuna_migrations().age(manifest.schemas[STUDIES]) == "older":
        raise UsageError("this backup's studies were made by an earlier Optuna; nothing was restored: restore it "
                         "without HPO_STUDIES, then hpo upgrade and hpo backup; restore that backup here")  # fmt: skip


def _mark_sweeps(scratch: Path, before: str, studies: StudiesDatabase) -> None:
    """Say in the folders of sweeps where the new home has their studies."""
    names = sweeps_in(StudiesDatabase.in_file(scratch / STUDIES))
    for folder in (scratch / "sweeps").glob("*"):
        mark = SweepPaths(folder).studies
        known = mark.read_text(encoding="utf-8").strip() if mark.exists() else ""
        # Else it is of a study in yet another database; a sweep that had just begun has no study yet.
        if known == before and (before or folder.name in names):
            mark.unlink(missing_ok=True)
            if studies.file is None:
                mark.write_text(f"{studies.address}\n", encoding="utf-8")


def _move(scratch: Path, home: Home) -> None:
    """Files into their places, then studies onto a server; after an error everything is in `scratch` again."""
    copy, moved = scratch / STUDIES, list[str]()
    is_for_server = home.studies_db.file is None and copy.exists()
    try:
        for entry in sorted(scratch.iterdir(), key=lambda entry: (entry.name in _LAST, entry.name)):
            if not (is_for_server and entry == copy):
                name = STUDIES if entry.name == OWN_STUDIES else entry.name
                entry.rename(home.dir / name)
                moved.append(name)
        sync_folder(home.dir)
        if is_for_server:
            copy_studies(StudiesDatabase.in_file(copy), home.studies_db)
    except BaseException:
        for name in moved:
            (home.dir / name).rename(scratch / (OWN_STUDIES if is_for_server and name == STUDIES else name))
        raise


def _check_empty(home: Home) -> None:
    """Raises `UsageError` where files are in the way."""
    try:
        found = [entry.name for entry in home.dir.iterdir() if entry.name not in (".gitkeep", "cache", _SCRATCH)]
    except FileNotFoundError:
        return
    except OSError as error:
        raise HpoError(f"home {home.dir}: cannot be read: {error.strerror}") from error
    if found:
        was_killed = (home.dir / _SCRATCH).exists() and not home.mlflow_db.exists()  # else it was used since
        why = ", as a restore that was killed left it: empty it and restore again" if was_killed else ""
        raise UsageError(f"home {home.dir}: is not empty ({listed(sorted(found))}){why}; nothing was restored; "
                         "hpo restore BACKUP --home NEW makes another one")  # fmt: skip
