"""The lease of a sweep on a server: one process writes its study, on whichever machine, and the others learn which one.

A row, not an advisory lock of PostgreSQL: that one ends with its connection, so a restart of the server would free it
and a pooler between client and server lend it to others; and it names no holder. A row outlives both. Its times are
those of the server's clock. Its token fences: a process that was paused until another one took the lease writes nothing
any more, because each transaction that writes renews the lease by its token first.
"""

from __future__ import annotations

import datetime
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

from hpo.databases.postgres import ServerGone, engine_of, opened, patiently, plain_refusals
from hpo.databases.studies import StudiesDatabase
from hpo.errors import SweepError, UsageError
from hpo.lock import is_alive, this_machine
from hpo.quoting import listed
from trainers.protocol.counted import counted

LASTS_S = 60
"""After its last renewal, in seconds."""
RENEWED_EVERY_S = 15.0
Clock = Callable[[], float | None]
"""Seconds since the epoch; None for the server's own clock."""

_TABLE = """CREATE TABLE IF NOT EXISTS hpo_leases (
    sweep VARCHAR(512) PRIMARY KEY, token VARCHAR(64) NOT NULL, host VARCHAR(255) NOT NULL,
    machine VARCHAR(255) NOT NULL, pid INTEGER NOT NULL, home TEXT NOT NULL,
    since DOUBLE PRECISION NOT NULL, until DOUBLE PRECISION NOT NULL
)"""
_NOW = "COALESCE(CAST(:now AS DOUBLE PRECISION), EXTRACT(EPOCH FROM clock_timestamp()))"
_HOLDER = f"""SELECT sweep, token, host, machine, pid, home, since, until, until - {_NOW} AS left_s
    FROM hpo_leases"""  # noqa: S608  # two constants
_TAKE = f"""INSERT INTO hpo_leases AS lease (sweep, token, host, machine, pid, home, since, until)
    VALUES (:sweep, :token, :host, :machine, :pid, :home, {_NOW}, {_NOW} + {LASTS_S})
    ON CONFLICT (sweep) DO UPDATE SET token = EXCLUDED.token, host = EXCLUDED.host, machine = EXCLUDED.machine,
        pid = EXCLUDED.pid, home = EXCLUDED.home, since = EXCLUDED.since, until = EXCLUDED.until
    WHERE lease.until <= {_NOW} OR lease.token = :dead
    RETURNING token"""  # noqa: S608  # constants
# A transaction whose client has vanished ends after a minute: until then its row is locked.
_RENEW = f"""UPDATE hpo_leases SET until = {_NOW} + {LASTS_S} WHERE sweep = :sweep AND token = :token
    RETURNING set_config('idle_in_transaction_session_timeout', '{LASTS_S}s', true)"""  # noqa: S608  # constants
_END = "UPDATE hpo_leases SET until = 0 WHERE sweep = :sweep AND token = :token"
_FORGET = "DELETE FROM hpo_leases WHERE sweep = :sweep AND token = :token"
_IS_THERE = "SELECT to_regclass('hpo_leases') IS NOT NULL"


class LeaseLost(SweepError):
    """This process does not have the lease of a sweep, or no longer: nothing is written without it."""


@dataclass(frozen=True)
class Holder:
    """The process that has a lease, or was the last to have it."""

    sweep: str
    token: str
    host: str
    machine: str
    """As `hpo.lock.this_machine`."""
    pid: int
    home: str
    since: float
    """Seconds since the epoch."""
    until: float
    left_s: float
    """Until the lease ends, unless it is renewed; at most 0 where it has ended."""

    @property
    def is_running(self) -> bool:
        """Whether the lease has not ended."""
        return self.left_s > 0

    @property
    def is_dead(self) -> bool:
        """Whether it is a process of this machine that has ended."""
        return self.machine == this_machine() and (self.pid == os.getpid() or not is_alive(self.pid))

    def __str__(self) -> str:
        since = datetime.datetime.fromtimestamp(self.since, datetime.UTC).astimezone().isoformat(timespec="seconds")
        return f"process {self.pid} on {self.host}, since {since}, home {self.home}"


class Lease:
    """A lease that this process holds."""

    def __init__(self, database: StudiesDatabase, sweep: str, engine: Engine, clock: Clock) -> None:
        self._database = database
        self._sweep = sweep
        self._engine = engine
        self._clock = clock
        self._token = uuid.uuid4().hex
        self._ended = threading.Event()

    def take(self, home: Path) -> None:
        """Raises `SweepError` with the holder where another process has it."""
        mine = {"host": socket.gethostname(), "machine": this_machine(), "pid": os.getpid(), "home": str(home)}

        def take(is_again: bool) -> Holder | None:
            with self._engine.begin() as connection:
                found = _holders(connection, self._clock(), self._sweep).get(self._sweep)
                if is_again and found and found.token == self._token:
                    return None
                dead = found.token if found and found.is_dead else ""
                taken = connection.execute(text(_TAKE), {**self._key, **mine, "dead": dead}).first()
                return None if taken else _holders(connection, self._clock(), self._sweep)[self._sweep]

        if holder := patiently(self._database, take):
            raise SweepError(
                f"sweep {self._sweep!r} is already running: {holder}; if that machine has died, the sweep is free "
                f"in {counted(max(1, round(holder.left_s)), 'second')}"
            )

    def renew(self, connection: Connection | None = None) -> None:
        """Raises `LeaseLost` where this process has given it up, or another one has taken it.

        A lease that was not renewed in time goes on if nobody took it.
        """
        if self._ended.is_set():
            raise LeaseLost(f"sweep {self._sweep!r} is no longer this process's: it has given up its lease")
        if connection is None:
            with self._engine.begin() as own:
                return self.renew(own)
        if connection.execute(text(_RENEW), self._key).first() is None:
            holder = _holders(connection, self._clock(), self._sweep).get(self._sweep)
            raise LeaseLost(f"sweep {self._sweep!r} is no longer this process's: {holder or 'it was deleted'}")
        return None

    def guard(self, engine: Engine) -> None:
        """Have each transaction on `engine` that writes renew the lease first, which then stays until its end."""

        fenced: WeakSet[Connection] = WeakSet()
        """In a transaction that has renewed it."""

        def fence(connection: Connection, *statement: Any) -> None:
            context = statement[3]
            writes = context is not None and (context.isinsert or context.isupdate or context.isdelete)
            if writes and connection not in fenced:
                fenced.add(connection)
                self.renew(connection)

        def end(connection: Connection) -> None:
            fenced.discard(connection)

        event.listen(engine, "before_cursor_execute", fence)
        event.listen(engine, "commit", end)
        event.listen(engine, "rollback", end)

    def forget(self) -> None:
        """Have no sweep of that name any more."""
        with self._engine.begin() as connection:
            connection.execute(text(_FORGET), self._key)

    def keep(self) -> None:
        """Renew it until it is ended; what goes wrong with the server, or a lost lease, is the next write's to say."""
        while not self._ended.wait(RENEWED_EVERY_S):
            try:
                self.renew()
            except (ServerGone, SQLAlchemyError):
                continue
            except LeaseLost:
                return

    def end(self, renewal: threading.Thread) -> None:
        """Free the sweep; where the server does not answer, the lease ends by itself."""
        self._ended.set()
        renewal.join()
        with suppress(ServerGone, SQLAlchemyError), self._engine.begin() as connection:
            connection.execute(text(_END), self._key)

    @property
    def _key(self) -> dict[str, Any]:
        return {"sweep": self._sweep, "token": self._token, "now": self._clock()}


_held: dict[tuple[str, str], Lease] = {}
"""(database, sweep) -> the lease that this process has, as it has the lock of a file."""


@contextmanager
def held_lease(database: StudiesDatabase, sweep: str, home: Path, clock: Clock = lambda: None) -> Iterator[None]:
    """Hold the lease of a sweep whose study is on a server; in SQLite the lock of its folder is enough.

    Raises `SweepError` where another process has it, `HpoError` where the server does not allow it.
    """
    if database.file:
        yield
        return
    engine = engine_of(database)
    try:
        lease = Lease(database, sweep, engine, clock)
        with plain_refusals(database):
            _make_table(database, engine)
            lease.take(home)
        renewal = threading.Thread(target=lease.keep, daemon=True)
        renewal.start()
        _held[str(database), sweep] = lease
        try:
            yield
        finally:
            del _held[str(database), sweep]
            lease.end(renewal)
    finally:
        engine.dispose()


def lease_here(database: StudiesDatabase, sweep: str) -> Lease:
    """The lease of a sweep that this process holds. Raises `LeaseLost` where it holds none."""
    lease = _held.get((str(database), sweep))
    if lease is None:
        raise LeaseLost(f"sweep {sweep!r}: this process does not hold its lease, and writes nothing in {database}")
    return lease


def holders(database: StudiesDatabase, clock: Clock = lambda: None) -> dict[str, Holder]:
    """Sweep -> who runs it, or was the last to, wherever; nothing for studies in SQLite.

    Raises `ServerGone` where the server does not answer, `HpoError` where it does not allow that.
    """
    if database.file:
        return {}
    with opened(database) as engine, engine.connect() as connection:
        return holders_at(connection, clock())


@contextmanager
def no_lease_taken(database: StudiesDatabase) -> Iterator[None]:
    """Have no sweep of a server run: until the end of the block, who takes a lease waits.

    Raises `UsageError` with who holds one, and as `holders`.
    """
    with opened(database) as engine:
        _make_table(database, engine)
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            connection.execute(text("LOCK TABLE hpo_leases IN EXCLUSIVE MODE"))
            refuse_running(_holders(connection, None))
            yield


def refuse_running(holders: Mapping[str, Holder]) -> None:
    """Raises `UsageError` with the sweeps that still have a lease."""
    if running := [f"{sweep} ({holder})" for sweep, holder in sorted(holders.items()) if holder.is_running]:
        raise UsageError(f"{listed(running)}: running now; nothing was changed: wait for its end")


def holders_at(connection: Connection, now: float | None = None) -> dict[str, Holder]:
    """The same over a connection; empty where no sweep has run on the server yet."""
    return _holders(connection, now) if connection.execute(text(_IS_THERE)).scalar() else {}


def _holders(connection: Connection, now: float | None, sweep: str | None = None) -> dict[str, Holder]:
    where = "" if sweep is None else " WHERE sweep = :sweep"
    rows = connection.execute(text(_HOLDER + where), {"now": now, "sweep": sweep})
    return {row.sweep: Holder(*row) for row in rows}


def _make_table(database: StudiesDatabase, engine: Engine) -> None:
    def make(_: bool) -> None:
        with engine.begin() as connection:
            if not connection.execute(text(_IS_THERE)).scalar():
                connection.execute(text(_TABLE))

    try:
        patiently(database, make)
    except (IntegrityError, ProgrammingError):  # another process made it at the same time
        patiently(database, make)
