"""SQLite databases that other processes use too: wait while they are locked, refuse them where they are unusable."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from hpo.errors import HpoError
from hpo.remedies import way_on

WAITS_S = 600.0
"""The longest wait for a locked database, in seconds."""
_STEP_S = 10.0
_AT_ONCE_S = 0.5
SQLITE_MAGIC = b"SQLite format 3\0"
"""How a file of SQLite begins."""
_waited_for: set[str] = set()
"""Databases whose connections in this process wait for a lock."""
_said: set[str] = set()


def usable(file: Path, *, to_write: bool = True) -> bool:
    """Whether there is a database at `file`; an empty file does not count.

    Raises `HpoError` where `file` is something else, or cannot be read or (with `to_write`) written.
    """
    try:
        if file.is_dir():
            raise HpoError(f"{file}: is a folder; expected a database: move it away, or choose another --home")
        with file.open("rb") as content:
            begin = content.read(len(SQLITE_MAGIC))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise HpoError(
            f"{file}: cannot be read: {error.strerror}; give yourself permission to read it, or fix the path"
        ) from error
    if begin and begin != SQLITE_MAGIC:
        way = "restore a backup of it, or move it away: the next sweep creates a new one"
        raise HpoError(f"{file}: is not a SQLite database; {way}")
    if to_write and not os.access(file, os.W_OK):
        way = "give yourself permission to write it, or choose another --home"
        raise HpoError(f"{file}: cannot be written; {way}")
    return bool(begin)


def wait_while_locked(file: Path) -> None:
    """Make every later connection of this process to `file` wait while another process holds its lock.

    It waits up to `WAITS_S` seconds, and prints so once.
    """
    from sqlalchemy import Engine, event  # late: who only reads studies does without

    if not _waited_for:
        event.listen(Engine, "do_connect", _connect)
    _waited_for.add(str(file))


@contextmanager
def opened(file: Path) -> Iterator[sqlite3.Connection]:
    """A direct connection, for what MLflow has no call for. Raises `HpoError` where the database is damaged."""
    try:
        with closing(connect(file)) as connection:
            yield connection
    except sqlite3.DatabaseError as error:
        raise HpoError(f"{file}: {error}; {way_on(error)}") from error


def connect(file: Path) -> sqlite3.Connection:
    """A connection without transactions of its own, which waits while the database is locked."""
    return sqlite3.connect(file, _STEP_S, factory=_Connection, isolation_level=None)


def _connect(dialect: Any, record: object, arguments: list[Any], keywords: dict[str, Any]) -> None:
    """SQLAlchemy's hook on every new connection: MLflow and Optuna create their engines themselves."""
    if dialect.name == "sqlite" and arguments and str(arguments[0]) in _waited_for:
        keywords["factory"] = _Connection


class _Cursor(sqlite3.Cursor):
    def execute(self, statement: str, values: Any = (), /) -> Self:
        _patiently(self.connection, super().execute, statement, values)
        return self

    def executemany(self, statement: str, rows: Any, /) -> Self:
        if not self.connection.in_transaction:  # take the lock first, so that no row in between finds it taken
            self.execute("BEGIN IMMEDIATE")
        super().executemany(statement, rows)
        return self


class _Connection(sqlite3.Connection):
    def __init__(self, database: str | Path, *arguments: Any, **keywords: Any) -> None:
        super().__init__(database, *arguments, **keywords)
        self.file = str(database)

    def cursor(self, factory: type[sqlite3.Cursor] = _Cursor) -> sqlite3.Cursor:  # type: ignore[override]  # as SQLAlchemy calls it
        return super().cursor(factory)

    def execute(self, statement: str, values: Any = (), /) -> sqlite3.Cursor:
        return self.cursor().execute(statement, values)

    def commit(self) -> None:
        _patiently(self, super().commit)


def _patiently(connection: Any, step: Callable[..., object], *arguments: Any) -> None:
    """Repeat a step, each time for SQLite's own busy timeout, until it succeeds or `WAITS_S` is over."""
    began = time.monotonic()
    while True:
        tried = time.monotonic()
        try:
            step(*arguments)
            return
        except sqlite3.OperationalError as error:
            is_locked = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            # Refused at once means a deadlock: the other process waits for us, so this transaction must end.
            if not is_locked or time.monotonic() - tried < _AT_ONCE_S or time.monotonic() - began > WAITS_S:
                raise
            _say_once(connection.file)


def _say_once(file: str) -> None:
    if file not in _said:
        _said.add(file)
        most = f"at most {WAITS_S / 60:.0f} minutes"
        print(f"{file} is locked by another process: waiting, {most}", file=sys.stderr, flush=True)
