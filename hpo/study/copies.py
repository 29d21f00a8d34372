"""The studies of one database copied into another, of whatever kind: for backups, and to move to a server or back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, MetaData, Table, create_engine, func, insert, inspect, select, text

from hpo.errors import HpoError, UsageError
from hpo.migrations import REVISION_QUERY, VERSION_TABLE, optuna_migrations
from hpo.postgres import engine_of
from hpo.remedies import first_line
from hpo.studies_database import StudiesDatabase
from hpo.study.store import storage
from hpo.study.study import STUDY_ERRORS, close_storage

_ROWS = 1000
"""Read and written at a time."""
_NOT_COPIED = (VERSION_TABLE, "version_info", "hpo_leases")
"""Tables that a new database has rows in, and who runs what now."""


def copy_studies(source: StudiesDatabase, target: StudiesDatabase) -> int:
    """Copy every study into a database that has none, as they are at one moment; returns how many there are.

    What is written meanwhile is not in the copy, and nobody waits. Raises `UsageError` where the target has studies,
    `HpoError` where a database cannot be used or has a schema of another Optuna.
    """
    close_storage(storage(target))  # makes the tables
    with _engine(source) as reads, _engine(target) as writes, reads.connect() as old, writes.begin() as new:
        if old.dialect.name == "postgresql":
            old.execution_options(isolation_level="REPEATABLE READ")
        optuna_migrations().check(str(source), str(old.execute(text(REVISION_QUERY)).scalar_one()))
        tables = _tables(new)
        if new.execute(select(func.count()).select_from(tables[0])).scalar_one():
            raise UsageError(f"{target}: has studies already; expected a database without any")
        for table in tables:
            _copy_rows(old, new, table)
        return int(new.execute(select(func.count()).select_from(tables[0])).scalar_one())


@contextmanager
def _engine(database: StudiesDatabase) -> Iterator[Engine]:
    """Raises `HpoError` with what is wrong with the database."""
    engine = create_engine(database.url) if database.file else engine_of(database)
    try:
        yield engine
    except STUDY_ERRORS as error:
        raise HpoError(f"{database}: {database.without_secrets(first_line(error))}") from None
    finally:
        engine.dispose()


def _tables(new: Connection) -> Sequence[Table]:
    """Those of Optuna with a study's records, `studies` first, each after those that it refers to."""
    found = MetaData()
    found.reflect(new)
    return [found.tables["studies"], *(t for t in found.sorted_tables if t.name not in (*_NOT_COPIED, "studies"))]


def _copy_rows(old: Connection, new: Connection, table: Table) -> None:
    there = Table(table.name, MetaData(), autoload_with=old)
    columns = [there.c[column.name] for column in table.columns]
    rows = old.execution_options(yield_per=_ROWS).execute(select(*columns))
    for some in rows.mappings().partitions(_ROWS):
        new.execute(insert(table), [dict(row) for row in some])
    if new.dialect.name == "postgresql":
        _continue_numbers(new, table)


def _continue_numbers(new: Connection, table: Table) -> None:
    """New rows of a table are numbered on from those that it has: PostgreSQL counts apart from the rows."""
    for column in inspect(new).get_pk_constraint(table.name)["constrained_columns"]:
        sequence = new.execute(select(func.pg_get_serial_sequence(table.name, column))).scalar()
        if sequence is not None:
            most = select(func.coalesce(func.max(table.c[column]), 1))
            new.execute(select(func.setval(sequence, most.scalar_subquery())))
