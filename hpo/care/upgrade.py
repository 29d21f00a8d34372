"""The databases of a home brought to the schemas of the installed libraries, while nothing of the home runs.

A file is migrated as a copy, which takes its place by rename: a kill at any instant leaves the old one or the new one.
A server's database is migrated where it is, after a dump of it. The old file, or the dump, stays in `before-upgrade`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hpo.care.tree_copy import copy_database
from hpo.databases.dump import dump_server
from hpo.databases.migrations import Age, Migrations, mlflow_migrations, optuna_migrations, revision_of
from hpo.databases.sqlite import usable
from hpo.databases.studies import StudiesDatabase
from hpo.errors import UsageError
from hpo.lock import exclusive, is_locked, taken_lock
from hpo.paths import Home
from hpo.quoting import listed
from hpo.study.lease import no_lease_taken, refuse_running
from hpo.study.one_writer import holders_of_leases
from hpo.study.schema import studies_revision, upgrade_studies
from hpo.tracking.mlflow_schema import upgrade_store
from trainers.protocol.files import sync_folder

KEPT, _SCRATCH = "before-upgrade", "upgrade.new"


@dataclass(frozen=True)
class Schema:
    """One database, its schema, and that of the installed library."""

    what: str
    place: str
    library: str
    revision: str
    """Empty where the database has no tables yet."""
    head: str
    age: Age
    kept: str = ""
    """Where the database lies as it was before its upgrade."""


@dataclass(frozen=True)
class _Store:
    schema: Schema
    file: Path | None
    migrate: Callable[[Path], None]


def schemas_of(home: Home) -> list[Schema]:
    """The databases that a home has. Raises `HpoError` where one cannot be read."""
    return [store.schema for store in _stores(home)]


def upgrade_home(home: Home, *, with_copy: bool = True) -> list[Schema]:
    """Upgrade what is older than the installed libraries; returns what was done.

    `with_copy` is about a server's database: a file's copy costs nothing. Raises `HpoError` for a database of a later
    library, `UsageError` where a process uses the home or no copy can be made.
    """
    stores = list(_stores(home))
    for store in stores:
        if store.schema.age == "later":
            _migrations(store.schema).check(store.schema.place, store.schema.revision)
    older = [store for store in stores if store.schema.age == "older"]
    if not older:
        return []
    with _nothing_runs(home, [store.file for store in older if store.file]):
        return [_upgraded_file(home, store) if store.file else _upgraded_server(home, store.schema, with_copy=with_copy)
                for store in older]  # fmt: skip


def _stores(home: Home) -> Iterator[_Store]:
    studies = home.studies_db
    if studies.file is None or usable(studies.file, to_write=False):
        schema = _schema("studies", str(studies), studies_revision(studies), optuna_migrations())
        yield _Store(schema, studies.file, lambda file: upgrade_studies(StudiesDatabase.in_file(file)))
    if usable(home.mlflow_db, to_write=False):
        schema = _schema("MLflow's store", str(home.mlflow_db), revision_of(home.mlflow_db), mlflow_migrations())
        yield _Store(schema, home.mlflow_db, upgrade_store)


def _schema(what: str, place: str, revision: str, migrations: Migrations) -> Schema:
    age: Age = migrations.age(revision) if revision else "current"  # without tables there is nothing to migrate
    return Schema(what, place, migrations.library, revision, migrations.head, age)


def _migrations(schema: Schema) -> Migrations:
    return optuna_migrations() if schema.library == "optuna" else mlflow_migrations()


def _upgraded_server(home: Home, old: Schema, *, with_copy: bool) -> Schema:
    """Migrate the studies where they are; sweeps that begin meanwhile, on whichever machine, wait for the end."""
    kept = home.dir / KEPT / f"studies-{old.revision}.dump"
    with no_lease_taken(home.studies_db):
        if with_copy:
            kept.parent.mkdir(parents=True, exist_ok=True)
            dump_server(home.studies_db, kept)
        upgrade_studies(home.studies_db)
    new = studies_revision(home.studies_db)
    return replace(old, revision=new, age="current", kept=str(kept) if with_copy else "")


def _upgraded_file(home: Home, store: _Store) -> Schema:
    """Migrate a copy and put it in the place of the file, which stays under another name."""
    file, old = store.file, store.schema
    assert file is not None  # noqa: S101  # servers are upgraded where they are
    scratch, kept = home.dir / _SCRATCH, home.dir / KEPT / f"{file.stem}-{old.revision}{file.suffix}"
    shutil.rmtree(scratch, ignore_errors=True)  # a kill left it
    scratch.mkdir()
    try:
        copy_database(file, scratch / file.name)
        store.migrate(scratch / file.name)
        kept.parent.mkdir(exist_ok=True)
        kept.unlink(missing_ok=True)  # of an upgrade that was killed, or undone by hand
        os.link(file, kept)
        (scratch / file.name).replace(file)
        sync_folder(home.dir)
    finally:
        shutil.rmtree(scratch)
    return replace(old, revision=revision_of(file), age="current", kept=str(kept))


@contextmanager
def _nothing_runs(home: Home, files: Sequence[Path]) -> Iterator[None]:
    """Hold every lock of a home, so that nothing begins either. Raises `UsageError` with who holds one, or a lease."""
    paths = sorted([*home.sweeps.glob("*/lock"), *home.sweeps.glob("*/remote.lock"), *home.dir.glob("nights/*/lock")])
    if held := [str(path.relative_to(home.dir).parent) for path in paths if is_locked(path)]:
        raise UsageError(f"{listed(held)}: running now; nothing was upgraded: wait for its end, or hpo stop SWEEP")
    refuse_running(holders_of_leases(home))
    with ExitStack() as locks:
        for path in paths:
            fd = taken_lock(path)
            if fd is None:
                raise UsageError(f"{path.relative_to(home.dir).parent}: has just begun to run; nothing was upgraded")
            locks.callback(os.close, fd)
        if home.mlflow_db.exists():
            for path in (home.bundle_lock, home.registry_lock, home.mlflow_lock):
                locks.enter_context(exclusive(path))
        if users := sorted({user for file in files for user in users_of_database(file)}):
            raise UsageError(f"{listed(users)}: has a database of {home.dir} open; nothing was upgraded: "
                             "end it first (hpo ui, say)")  # fmt: skip
        yield


def users_of_database(file: Path) -> list[str]:
    """Other processes that have a file open, as `process PID (NAME)`, as far as this user may see them."""
    found, stat = [], file.stat()
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        with suppress(OSError):  # it has ended, or is of another user
            if any(_is_open(link, stat) for link in (process / "fd").iterdir()):
                found.append(f"process {process.name} ({(process / 'comm').read_text().strip()})")
    return sorted(found)


def _is_open(link: Path, stat: os.stat_result) -> bool:
    try:
        return os.path.samestat(link.stat(), stat)
    except OSError:
        return False
