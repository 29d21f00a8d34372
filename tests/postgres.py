"""A PostgreSQL server for tests: on loopback, in a folder of its own, as a user without privileges, gone afterwards.

with postgres(folder) as url:          # postgresql://hpo:...@127.0.0.1:PORT/studies, as HPO_STUDIES takes it
with server(folder) as running:        # the same with running.stop(), running.start() and more databases
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from tests.ports import free_port

USER, PASSWORD, DATABASE = "hpo", "s3cret{%/:@ word", "studies"
"""The password has characters that every layer between a variable and the server treats in a way of its own."""
_UNPRIVILEGED = "postgres"
"""Whom the server runs as where the tests run as root, which PostgreSQL refuses; Debian's package makes this user."""


@dataclass(frozen=True)
class Server:
    """A server that runs on a port of loopback."""

    folder: Path
    port: int
    programs: Path
    """The folder of `initdb`, `pg_ctl` and `psql`."""

    def url(self, database: str = DATABASE) -> str:
        """Of one of its databases, with the password."""
        return f"postgresql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = f"-p {self.port} -h 127.0.0.1 -c unix_socket_directories='' -c fsync=off -c shared_buffers=16MB"
        self.run("pg_ctl", "-w", "-s", "-D", "data", "-l", "log", "-o", settings, "start")

    def stop(self) -> None:
        """Stop it at once: every connection breaks, as in a crash."""
        self.run("pg_ctl", "-w", "-s", "-D", "data", "-m", "immediate", "stop")

    def create(self, database: str, template: str = "template1") -> str:
        """Create a database, as a copy of another one; returns its URL."""
        self.ask(f'CREATE DATABASE "{database}" TEMPLATE "{template}"', "postgres")
        return self.url(database)

    def ask(self, statement: str, database: str = DATABASE) -> list[str]:
        """What `psql` prints for a statement: a line for each row, with | between columns."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database]
        command = [str(self.programs / "psql"), "-qAtX", "-v", "ON_ERROR_STOP=1", *where, "-c", statement]
        environment = {**os.environ, "PGPASSWORD": PASSWORD, "PGOPTIONS": "-c client_min_messages=warning"}
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout.split(
            "\n"
        )[:-1]

    def run(self, program: str, *arguments: str) -> None:
        """One of its programs, as the user it runs as, in its folder. Raises `RuntimeError` with what it says."""
        as_user = ["setpriv", "--reuid", _UNPRIVILEGED, "--regid", _UNPRIVILEGED, "--clear-groups"]
        command = [*(as_user if os.geteuid() == 0 else []), str(self.programs / program), *arguments]
        done = subprocess.run(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            log = self.folder / "log"
            raise RuntimeError(f"{program} failed: {done.stderr}{log.read_text() if log.exists() else ''}")


def installed() -> Path | None:
    """The folder of PostgreSQL's programs; None where none is installed."""
    found = shutil.which("pg_ctl") or max(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), default=None)
    return Path(found).resolve().parent if found else None


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """A server with the empty database `studies`. Skips the test where no PostgreSQL is installed."""
    programs = installed()
    if programs is None:
        pytest.skip("no PostgreSQL is installed: apt-get install postgresql")
    place = folder if os.geteuid() else None  # the server's user cannot enter pytest's folders of root
    with tempfile.TemporaryDirectory(prefix="postgres-", dir=place, ignore_cleanup_errors=True) as data:
        running = Server(Path(data), free_port(), programs)
        (running.folder / "password").write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (running.folder, running.folder / "password"):
                shutil.chown(path, _UNPRIVILEGED, _UNPRIVILEGED)
        login = ["-U", USER, "-A", "scram-sha-256", "--pwfile=password"]
        running.run("initdb", "-D", "data", *login, "--no-sync", "--encoding=UTF8", "--locale=C")
        running.start()
        try:
            running.create(DATABASE)
            yield running
        finally:
            if (running.folder / "data" / "postmaster.pid").exists():
                running.stop()


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The URL of an empty database, as `HPO_STUDIES` takes it. Skips the test where no PostgreSQL is installed."""
    with server(folder) as running:
        yield running.url()


@contextmanager
def as_a_process() -> Iterator[None]:
    """Close the connections that a test leaves open, as the end of a process does."""
    opened: list[Any] = []
    event.listen(Pool, "connect", keep := lambda connection, _: opened.append(connection))
    try:
        yield
    finally:
        event.remove(Pool, "connect", keep)
        for connection in opened:
            connection.close()
