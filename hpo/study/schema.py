"""The schema of the studies' database: whether it is the installed Optuna's, and how it becomes that."""

from __future__ import annotations

import optuna
from sqlalchemy import Connection, inspect, text

from hpo.databases.migrations import REVISION_QUERY, VERSION_TABLE, optuna_migrations, revision_of
from hpo.databases.postgres import engine_of
from hpo.databases.studies import StudiesDatabase
from hpo.errors import HpoError
from hpo.remedies import first_line
from hpo.study.study import STUDY_ERRORS, close_storage


def check_schema(database: StudiesDatabase) -> None:
    """Raises `HpoError` where another Optuna made a file that is there. Optuna itself would first add tables to it.

    A server's schema is left to Optuna, which finds it out at its own first question: see `mismatch`.
    """
    if database.file is not None and (revision := revision_of(database.file)):
        optuna_migrations().check(str(database), revision)


def mismatch(database: StudiesDatabase, error: Exception) -> HpoError | None:
    """What Optuna says of a schema that is not its own, with the way on; None for any other error."""
    if "compatible with the table schema" not in str(error):
        return None
    if "storage upgrade" in str(error):
        return HpoError(f"{database}: was made by an earlier Optuna; hpo upgrade brings it to this one")
    return HpoError(f"{database}: was made by a later Optuna; install the version that wrote it")


def studies_revision(database: StudiesDatabase) -> str:
    """The revision of a database's schema; empty where it has no tables yet. Raises `HpoError` where it is unusable."""
    if database.file is not None:
        return revision_of(database.file)
    engine = engine_of(database)
    try:
        with engine.connect() as connection:
            return revision_at(connection)
    except STUDY_ERRORS as error:
        raise HpoError(f"{database}: {database.without_secrets(first_line(error))}") from None
    finally:
        engine.dispose()


def revision_at(connection: Connection) -> str:
    """The revision of a server's schema; empty where it has no tables yet."""
    is_there = inspect(connection).has_table(VERSION_TABLE)
    return str(connection.execute(text(REVISION_QUERY)).scalar_one()) if is_there else ""


def upgrade_studies(database: StudiesDatabase) -> None:
    """Bring a database to the installed Optuna's schema. Raises `HpoError` with what went wrong."""
    try:
        storage = optuna.storages.RDBStorage(database.url, skip_compatibility_check=True)
        try:
            storage.upgrade()
        finally:
            close_storage(storage)
    except (*STUDY_ERRORS, RuntimeError) as error:
        raise HpoError(f"{database}: {database.without_secrets(first_line(error))}") from None
