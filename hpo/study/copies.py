"""The studies of one database copied into another, of whatever kind: for backups, and to move to a server or back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    MetaData,
    Table,
    create_engine,
    func,
    insert,
    inspect,
    select,
    text,
    true,
)  # fmt: skip

from hpo.databases.migrations import REVISION_QUERY, VERSION_TABLE, optuna_migrations
from hpo.databases.postgres import engine_of, plain_refusals
from hpo.databases.sqlite import usable
from hpo.databases.studies import StudiesDatabase
from hpo.errors import UsageError
from hpo.study.lease import no_lease_taken
from hpo.study.schema import make_tables

_ROWS = 1000
"""Read and written at a time."""
_NOT_COPIED = (VERSION_TABLE, "version_info", "hpo_leases")
"""Tables that a new database has rows in, and who runs what now."""


def copy_studies(source: StudiesDatabase, target: StudiesDatabase, sweeps: Collection[str] | None = None) -> int:
    """Copy every study, or those of some sweeps, into a database that has none, as they are at one moment; returns how
    many there are.

    What is written meanwhile is not in the copy, and nobody waits. Raises `UsageError` where the target has studies or
    runs a sweep, `HpoError` where a database cannot be used or has a schema of another Optuna.
    """
    with (
        _ready(target), _engine(source) as reads, _engine(target) as writes, reads.connect() as old,
        writes.begin() as new,
    ):  # fmt: skip
        if old.dialect.name == "postgresql":
            old.execution_options(isolation_level="REPEATABLE READ")
        optuna_migrations().check(str(source), str(old.execute(text(REVISION_QUERY)).scalar_one()))
        tables = _tables(old, new)
        if new.execute(select(func.count()).select_from(tables[0])).scalar_one():
            raise UsageError(f"{target}: has studies already; expected a database without any")
        studies = None if sweeps is None else _studies_of(old, sweeps)
        for table in tables:
            _copy_rows(old, new, table, studies)
        return int(new.execute(select(func.count()).select_from(tables[0])).scalar_one())


def sweeps_in(database: StudiesDatabase) -> set[str]:
    """Names of the sweeps that a database has, whichever Optuna made it. Raises `HpoError` where it is unusable."""
    if database.file is not None and not usable(database.file, to_write=False):
        return set()
    with _engine(database) as engine, engine.connect() as connection:
        if not inspect(connection).has_table("studies"):
            return set()
        names = connection.execute(text("SELECT study_name FROM studies")).scalars()
        return {str(name).partition("@")[0] for name in names}


@contextmanager
def _ready(target: StudiesDatabase) -> Iterator[None]:
    """A database with tables; on a server no sweep runs until the end of the block."""
    with no_lease_taken(target) if target.file is None else nullcontext():
        make_tables(target)
        yield


@contextmanager
def _engine(database: StudiesDatabase) -> Iterator[Engine]:
    """Raises `HpoError` with what is wrong with the database."""
    engine = create_engine(database.url) if database.file else engine_of(database)
    try:
        with plain_refusals(database):
            yield engine
    finally:
        engine.dispose()


def _tables(old: Connection, new: Connection) -> Sequence[Table]:
    """Those of Optuna with a study's records, `studies` first, each after those that it refers to.

    A server's database may have tables of other programs too: only what both have is Optuna's.
    """
    found, known = MetaData(), set(inspect(old).get_table_names())
    found.reflect(new, only=lambda name, _: name in known and name not in _NOT_COPIED)
    return [found.tables["studies"], *(table for table in found.sorted_tables if table.name != "studies")]


def _studies_of(old: Connection, sweeps: Collection[str]) -> list[int]:
    """Ids of the studies of some sweeps, all revisions of them."""
    rows = old.execute(text("SELECT study_id, study_name FROM studies")).all()
    return [study for study, name in rows if name.partition("@")[0] in sweeps]


def _copy_rows(old: Connection, new: Connection, table: Table, studies: list[int] | None) -> None:
    there = Table(table.name, MetaData(), autoload_with=old)
    columns = [there.c[column.name] for column in table.columns]
    wanted = true() if studies is None else _is_of(old, there, studies)
    rows = old.execution_options(yield_per=_ROWS).execute(select(*columns).where(wanted))
    for some in rows.mappings().partitions(_ROWS):
        new.execute(insert(table), [dict(row) for row in some])
    if new.dialect.name == "postgresql":
        _continue_numbers(new, table)


def _is_of(old: Connection, there: Table, studies: list[int]) -> ColumnElement[bool]:
    """Which rows of a table are of these studies, themselves or by their trial."""
    if "study_id" in there.c:
        return there.c.study_id.in_(studies)
    trials = Table("trials", MetaData(), autoload_with=old)
    return there.c.trial_id.in_(select(trials.c.trial_id).where(trials.c.study_id.in_(studies)))


def _continue_numbers(new: Connection, table: Table) -> None:
    """New rows of a table are numbered on from those that it has: PostgreSQL counts apart from the rows."""
    for column in inspect(new).get_pk_constraint(table.name)["constrained_columns"]:
        sequence = new.execute(select(func.pg_get_serial_sequence(table.name, column))).scalar()
        if sequence is not None:
            most = select(func.coalesce(func.max(table.c[column]), 1))
            new.execute(select(func.setval(sequence, most.scalar_subquery())))
