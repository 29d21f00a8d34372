"""Whether the server of the studies answers, what it has, and who holds which lease: asked once, in seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from hpo.databases.postgres import ServerGone, engine_of, revision_at
from hpo.databases.studies import StudiesDatabase
from hpo.remedies import first_line
from hpo.study.lease import Holder, holders_at

_NOW = text("SELECT EXTRACT(EPOCH FROM clock_timestamp()), current_setting('server_version')")


@dataclass(frozen=True)
class DatabaseHealth:
    """What a server answered."""

    version: str = ""
    """Of PostgreSQL."""
    revision: str = ""
    """Of the schema; empty where the database has no tables yet."""
    skew_s: float = 0.0
    """Seconds by which its clock is ahead of this machine's."""
    holders: dict[str, Holder] = field(default_factory=dict)
    """Sweep -> who runs it, of those whose leases have not ended."""
    problem: str = ""
    """Why it cannot be used; without a password."""


def ask_studies_server(database: StudiesDatabase, limit_s: int) -> DatabaseHealth:
    """Ask the server of a database; never raises for what the server does. Raises `HpoError` without its driver."""
    engine = engine_of(database, limit_s)
    try:
        return _ask(engine)
    except (SQLAlchemyError, ServerGone) as error:
        return DatabaseHealth(problem=database.without_secrets(first_line(error)))
    finally:
        engine.dispose()


def _ask(engine: Engine) -> DatabaseHealth:
    with engine.connect() as connection:
        began = time.time()
        now, version = connection.execute(_NOW).one()
        skew = float(now) - (began + time.time()) / 2
        found = {name: holder for name, holder in holders_at(connection).items() if holder.is_running}
        return DatabaseHealth(str(version), revision_at(connection), skew, found)
