"""Optuna's storage of the studies: opened by who may write a sweep, closed, and its errors in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from sqlalchemy.exc import SQLAlchemyError

from hpo.databases.migrations import optuna_migrations, revision_of
from hpo.databases.sqlite import usable, wait_while_locked
from hpo.databases.studies import StudiesDatabase
from hpo.errors import HpoError

optuna.logging.set_verbosity(optuna.logging.WARNING)

STUDY_ERRORS = (optuna.exceptions.StorageInternalError, SQLAlchemyError)
"""What Optuna and the database below it raise when the store cannot be written."""


def open_storage(database: StudiesDatabase | None, sweep: str) -> optuna.storages.BaseStorage:
    """Optuna's storage, to write a sweep to; `database` None keeps it in memory. Who only reads needs none.

    Raises `LeaseLost` where the studies are on a server and this process does not hold the sweep's lease there,
    `HpoError` where something that is no database of studies lies there, or the server does not answer.
    """
    if database is None:
        return optuna.storages.InMemoryStorage()
    with plain_optuna_errors(database):
        if database.file is None:
            from hpo.study.lease import lease_here  # late: they are for servers alone
            from hpo.study.server_storage import ServerStorage

            return ServerStorage(database, lease_here(database, sweep))
        _check_file(database.file)
        wait_while_locked(database.file)
        return optuna.storages.RDBStorage(database.url, engine_kwargs={"connect_args": {"timeout": 10}})


def close_storage(storage: optuna.storages.BaseStorage) -> None:
    """Close a database's files: its engine would keep them open until the garbage collector finds it."""
    if isinstance(storage, optuna.storages.RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


@contextmanager
def plain_optuna_errors(database: StudiesDatabase) -> Iterator[None]:
    """What Optuna has against a database, as an error for people."""
    try:
        yield
    except (*STUDY_ERRORS, RuntimeError) as error:  # the latter for tables of another program or another Optuna
        raise _mismatch(database, error) or database.refusal(error) from error


def _mismatch(database: StudiesDatabase, error: Exception) -> HpoError | None:
    """What Optuna says of a schema that is not its own, with the way on; None for any other error."""
    if "compatible with the table schema" not in str(error):
        return None
    if "storage upgrade" in str(error):
        return HpoError(f"{database}: was made by an earlier Optuna; hpo upgrade brings it to this one")
    return HpoError(f"{database}: was made by a later Optuna; install the version that wrote it")


def _check_file(file: Path) -> None:
    """Raises `HpoError` where something else lies there, or studies of another Optuna, to which it would add tables.

    Of a server's schema Optuna itself finds that out, at its own first question.
    """
    if usable(file) and (revision := revision_of(file)):
        optuna_migrations().check(str(file), revision)
