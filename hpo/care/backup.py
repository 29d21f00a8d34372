"""A home copied while sweeps run in it, so that what is restored from the copy is a state that a kill could have left.

Order is what makes it so. A sweep writes a trial's files first, then MLflow, then the study; a night writes its record
after all of them. The copy is made the other way round: the records of nights, the studies, MLflow's store, and the
files last. So whatever a record says is done has in the copy what it stands on: a trial that is complete in the study
has its run and its result. The files may be further on than the study. That is what a kill leaves too: the sweep takes
over a result that lies on disk and is of the very trial that it is about to train, and clears away anything else.

The cache, locks and logs of schedulers are left out: they can be made again, or mean nothing elsewhere.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path, PurePosixPath

from hpo.care.manifest import CONTENT, OWN_STUDIES, SCHEMAS, STUDIES, Manifest, read_manifest
from hpo.care.tree_copy import TreeCopy, copy_database
from hpo.databases.migrations import revision_of
from hpo.databases.sqlite import usable
from hpo.databases.studies import StudiesDatabase
from hpo.errors import HpoError, UsageError
from hpo.garbage import discard
from hpo.lock import taken_lock
from hpo.paths import Home
from hpo.quoting import listed
from hpo.remedies import way_on
from hpo.study.copies import copy_studies, sweeps_in
from hpo.study.one_writer import sweeps_of_server
from hpo.tracking.mlflow_places import registered_versions
from trainers.protocol.files import sync_folder

_LEFT_OUT = re.compile(
    r"cache|mlflow\.new|upgrade\.new|\.restored|schedule\.log|[^/]+\.lock|ledgers/[^/]+\.lock|nights/[^/]+/lock"
    r"|sweeps/[^/]+/(lock|remote\.lock|mlflow\.new|remote\.log)"
)
_NIGHT = re.compile(r"nights/[^/]+/\d{4}-\d{2}-\d{2}\.json")
_PACKAGES = ("hpo", "optuna", "mlflow")


def make_backup(home: Home, target: Path, since: Path | None = None) -> Manifest:
    """Copy a home into the new folder `target`, which appears when it is whole.

    Files that are as they were in the backup `since` are linked to it and take no space. Raises `UsageError` for a
    target that cannot be, `HpoError` where something cannot be read or written, or changes too fast.
    """
    _check(home, target, since)
    studies = _studies_of(home)
    made = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    with _explained(target), _appearing(target) as scratch:
        tree = _tree(home, scratch, since)
        for record in sorted(home.dir.glob("nights/*/*.json")):
            path = PurePosixPath(record.relative_to(home.dir))
            if _NIGHT.fullmatch(str(path)):
                tree.copy_file(path)
        _copy_studies(home, studies, tree)
        if usable(home.mlflow_db, to_write=False):
            tree.copy_file(PurePosixPath(home.mlflow_db.name))
        tree.copy()
        _refuse_gone(home, studies, tree)
        schemas = {name: revision_of(tree.target / name) for name in SCHEMAS if name in tree.files}
        manifest = Manifest(
            made=made,
            home=str(home.dir),
            host=platform.node(),
            versions={name: version(name) for name in _PACKAGES},
            schemas=schemas,
            studies=str(studies),
            server="" if studies.file else studies.address,
            files=sorted(tree.files.values(), key=lambda file: file.path),
        )
        manifest.write(scratch)
    return manifest


def _tree(home: Home, scratch: Path, since: Path | None) -> TreeCopy:
    first = {STUDIES, home.mlflow_db.name}

    def is_left_out(path: PurePosixPath) -> bool:
        return str(path) in first or bool(_LEFT_OUT.fullmatch(str(path)) or _NIGHT.fullmatch(str(path)))

    if since is None:
        return TreeCopy(home.dir, scratch / CONTENT, is_left_out)
    hashes = {file.path: file.sha256 for file in read_manifest(since).files}
    return TreeCopy(home.dir, scratch / CONTENT, is_left_out, since / CONTENT, hashes)


def _studies_of(home: Home) -> StudiesDatabase:
    """The studies in use; those of the home's own file while no sweep of the home has run on the server."""
    studies = home.studies_db
    if studies.file is None and not sweeps_of_server(home)[studies.address]:
        return StudiesDatabase.in_file(home.dir / STUDIES)
    return studies


def _copy_studies(home: Home, studies: StudiesDatabase, tree: TreeCopy) -> None:
    """As `studies.db`, whatever they are in: a backup of a server's studies can be restored without one.

    Those of other homes stay out: their files do.
    """
    if studies.file is None:
        tree.target.mkdir(parents=True, exist_ok=True)
        copy_studies(studies, StudiesDatabase.in_file(tree.target / STUDIES), sweeps_of_server(home)[studies.address])
        tree.add(STUDIES)
        if usable(own := home.dir / STUDIES, to_write=False):
            copy_database(own, tree.target / OWN_STUDIES)
            tree.add(OWN_STUDIES)
    elif usable(studies.file, to_write=False):
        tree.copy_file(PurePosixPath(studies.file.name))


def _refuse_gone(home: Home, studies: StudiesDatabase, tree: TreeCopy) -> None:
    """Raises `HpoError` where a sweep or a release was deleted meanwhile: the copy has its record without its files."""
    gone = sorted(sweeps_in(StudiesDatabase.in_file(tree.target / STUDIES)) - sweeps_in(studies))
    if usable(copy := tree.target / home.mlflow_db.name, to_write=False):
        gone += sorted(registered_versions(copy) - registered_versions(home.mlflow_db))
    if gone:
        raise HpoError(f"{listed(gone)}: deleted while it was copied; there is no backup: run the command again")


def _check(home: Home, target: Path, since: Path | None) -> None:
    """Raises `UsageError` where there is nothing to copy, or `target` is no place for it."""
    if not home.dir.is_dir() or not any(entry.name not in (".gitkeep", "cache") for entry in home.dir.iterdir()):
        raise UsageError(f"home {home.dir}: has nothing to back up yet; --home chooses another one")
    if os.path.lexists(target):
        raise UsageError(f"{target}: already exists; choose a new folder")
    if target.is_relative_to(home.dir):
        raise UsageError(f"{target}: is in the home itself; choose a folder outside of {home.dir}")
    for address, names in sweeps_of_server(home).items():
        if address != home.studies_db.address:
            raise UsageError(
                f"{listed(sorted(names))}: their studies are in {address}, which a backup with the studies of "
                f"{home.studies_db} would not have; let HPO_STUDIES name that one; if it was moved, write its new "
                "address into the file studies of each sweep's folder; if it is gone for good, move these folders away"
            )
    if since is not None:
        read_manifest(since)
        place = next(place for place in target.parents if place.exists())
        if since.stat().st_dev != place.stat().st_dev:
            raise UsageError(f"--since {since}: is on another disk than {target}; "
                             "leave --since out: files cannot be linked across disks")  # fmt: skip


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    """What the disk says, as an error for people."""
    try:
        yield
    except OSError as error:
        raise HpoError(f"{target}: no backup was made: {error}; {way_on(error)}") from error


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A folder to write in, which becomes `target` at the end and is removed after an error; a kill leaves it to the
    next call."""
    scratch = target.with_name(f".{target.name}.new")
    lock = scratch / "lock"
    fd = taken_lock(lock)
    if fd is None:
        raise UsageError(f"{target}: another hpo backup writes it now; choose another folder")
    try:
        for entry in scratch.iterdir():
            if entry != lock:
                discard(entry)
        yield scratch
        lock.unlink()
        os.sync()
        scratch.rename(target)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(scratch)
        raise
    finally:
        os.close(fd)
