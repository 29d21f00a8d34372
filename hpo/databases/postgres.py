"""PostgreSQL servers that vanish and come back: wait until one answers again, and say plainly that it does not."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import SQLAlchemyError

from hpo.databases.migrations import REVISION_QUERY, VERSION_TABLE
from hpo.databases.studies import StudiesDatabase
from hpo.errors import HpoError
from hpo.remedies import first_line, is_refusal, way_on
from hpo.signals import is_stop_wished

WAITS_S = 600.0
"""The longest wait for a server that has answered this process before, in seconds."""
_STEP_S = 1.0
_OPTION = "studies"
_answered: set[str] = set()
"""Servers that have answered this process; the others are wrong addresses as far as it knows."""
_CONNECTION = {
    # A peer that vanishes without a word is noticed after a minute, not after two hours.
    "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000,
    "application_name": "hpo",
    "prepare_threshold": None,  # poolers between client and server do not know prepared statements
}  # fmt: skip
_CONNECTS_WITHIN_S = 10
T = TypeVar("T")


class ServerGone(HpoError):
    """The server of the studies does not answer: start it or correct its address; the same command continues."""


def engine_settings(database: StudiesDatabase, connects_within_s: int = _CONNECTS_WITHIN_S) -> dict[str, Any]:
    """Keywords of SQLAlchemy's `create_engine` for a database on a server, whose engine then raises `ServerGone`.

    Raises `HpoError` where the driver is not installed.
    """
    if importlib.util.find_spec("psycopg") is None:
        raise HpoError(f"{database}: PostgreSQL needs the package psycopg; pip install 'psycopg[binary]>=3.3'")
    for name, listener in (("handle_error", _plain), ("engine_connect", _note_answer)):
        if not event.contains(Engine, name, listener):
            event.listen(Engine, name, listener)
    arguments = {**_CONNECTION, "connect_timeout": connects_within_s}
    return {"connect_args": arguments, "execution_options": {_OPTION: database}}


def engine_of(database: StudiesDatabase, connects_within_s: int = _CONNECTS_WITHIN_S) -> Engine:
    """An engine with one connection. Raises as `engine_settings` does."""
    return create_engine(database.url, pool_size=1, **engine_settings(database, connects_within_s))


@contextmanager
def opened(database: StudiesDatabase) -> Iterator[Engine]:
    """An engine with one connection, for as long as it is needed.

    Raises `HpoError` with what the server refuses, and as `engine_settings` does.
    """
    engine = engine_of(database)
    try:
        with plain_refusals(database):
            yield engine
    finally:
        engine.dispose()


@contextmanager
def plain_refusals(database: StudiesDatabase) -> Iterator[None]:
    """What a database refuses, as an error for people."""
    try:
        yield
    except SQLAlchemyError as error:
        raise database.refusal(error) from error


def revision_at(connection: Connection) -> str:
    """The revision of a server's schema; empty where no library has made its tables."""
    is_there = inspect(connection).has_table(VERSION_TABLE)
    return str(connection.execute(text(REVISION_QUERY)).scalar_one()) if is_there else ""


def patiently(database: StudiesDatabase, step: Callable[[bool], T]) -> T:
    """The result of `step`, which is repeated while the server does not answer, up to `WAITS_S` seconds.

    `step` is given whether the server vanished in an earlier try: its last transaction may or may not have happened.
    Raises `ServerGone` where the server has never answered this process, does not come back, or a person does not want
    to wait for it.
    """
    try:
        return _patiently(database, step)
    except (KeyboardInterrupt, ServerGone):
        _answered.discard(str(database))  # what is written because of this error does not wait again
        raise


def _patiently(database: StudiesDatabase, step: Callable[[bool], T]) -> T:
    began, tries = time.monotonic(), 0
    while True:
        try:
            result = step(tries > 0)
        except ServerGone:
            tries += 1
            is_enough = time.monotonic() - began > WAITS_S or is_stop_wished()
            if str(database) not in _answered or (tries > 1 and is_enough):
                raise
            if tries == 2:  # once is only a connection that has ended meanwhile
                _say(f"{database} does not answer: waiting, at most {WAITS_S / 60:.0f} minutes; Ctrl-C ends the wait")
            if tries > 1:
                time.sleep(_STEP_S)
        else:
            if tries > 1:
                _say(f"{database} answers again")
            return result


def _plain(context: ExceptionContext) -> ServerGone | None:
    """SQLAlchemy's hook on every error: one that is raised in its place where the server is gone."""
    database = context.engine.get_execution_options().get(_OPTION) if context.engine else None
    if database is None or not (context.is_disconnect or context.connection is None):
        return None
    error = context.original_exception
    what = "cannot be used" if is_refusal(error) else "does not answer"
    return ServerGone(database.without_secrets(f"{database} {what}: {first_line(error)}; {way_on(error)}"))


def _note_answer(connection: Any) -> None:
    database = connection.get_execution_options().get(_OPTION)
    if database is not None:
        _answered.add(str(database))


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
