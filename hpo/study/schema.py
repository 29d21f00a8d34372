"""The tables of the studies' database: made, asked for their schema, and brought to the installed Optuna's."""

from __future__ import annotations

import optuna

from hpo.databases.migrations import revision_of
from hpo.databases.postgres import engine_settings, opened, revision_at
from hpo.databases.studies import StudiesDatabase
from hpo.study.storage import close_storage, plain_optuna_errors


def make_tables(database: StudiesDatabase) -> None:
    """Optuna's, in a database that has none; nobody else may do that at the same time.

    Raises `HpoError` where it has those of another Optuna, or cannot be used.
    """
    settings = engine_settings(database) if database.file is None else {}
    with plain_optuna_errors(database):
        close_storage(optuna.storages.RDBStorage(database.url, settings))


def studies_revision(database: StudiesDatabase) -> str:
    """The revision of a database's schema; empty where it has no tables yet. Raises `HpoError` where it is unusable."""
    if database.file is not None:
        return revision_of(database.file)
    with opened(database) as engine, engine.connect() as connection:
        return revision_at(connection)


def upgrade_studies(database: StudiesDatabase) -> None:
    """Bring a database to the installed Optuna's schema. Raises `HpoError` with what went wrong."""
    with plain_optuna_errors(database):
        storage = optuna.storages.RDBStorage(database.url, skip_compatibility_check=True)
        try:
            storage.upgrade()
        finally:
            close_storage(storage)
