"""What a tracking server already has of a sweep, written down beside the sweep's files.

It saves questions and uploads. It is not what makes a delivery exact: of a run that it does not call complete, the
server is asked what it has. So a kill between a request and this file costs a question, and never doubles a value.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hpo.databases.sqlite import opened

_TABLES = (
    "CREATE TABLE IF NOT EXISTS copies (server TEXT, local TEXT, remote TEXT NOT NULL, records TEXT NOT NULL,"
    " files TEXT NOT NULL, PRIMARY KEY (server, local))",
    "CREATE TABLE IF NOT EXISTS files (server TEXT, local TEXT, path TEXT, stamp TEXT NOT NULL,"
    " PRIMARY KEY (server, local, path))",
)


@dataclass(frozen=True)
class Entry:
    """What a server has of one run or logged model."""

    remote: str
    """Its id there."""
    records: str = ""
    """The version of the local records that is there as a whole; empty before one is."""
    files: str = ""
    """The same of the files."""


class Ledger:
    """The entries of one server."""

    def __init__(self, connection: sqlite3.Connection, server: str) -> None:
        self._connection = connection
        self._server = server
        for table in _TABLES:
            connection.execute(table)

    def entries(self) -> dict[str, Entry]:
        """Local id -> what the server has of it."""
        rows = self._connection.execute(
            "SELECT local, remote, records, files FROM copies WHERE server = ?", (self._server,)
        ).fetchall()
        return {local: Entry(remote, records, files) for local, remote, records, files in rows}

    def put(self, local: str, entry: Entry) -> None:
        """Write an entry, in place of the one before."""
        self._connection.execute(
            "INSERT OR REPLACE INTO copies VALUES (?, ?, ?, ?, ?)",
            (self._server, local, entry.remote, entry.records, entry.files),
        )

    def files(self, local: str) -> dict[str, str]:
        """Path -> stamp of each file that the server has of a run or model."""
        rows = self._connection.execute(
            "SELECT path, stamp FROM files WHERE server = ? AND local = ?", (self._server, local)
        ).fetchall()
        return dict(rows)

    def put_file(self, local: str, path: str, stamp: str) -> None:
        """Write down that the server has a file."""
        self._connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (self._server, local, path, stamp))

    def forget(self) -> None:
        """Forget everything that the server had: it has lost it."""
        for table in ("copies", "files"):
            self._connection.execute(f"DELETE FROM {table} WHERE server = ?", (self._server,))  # noqa: S608  # our names


@contextmanager
def opened_ledger(path: Path, server: str) -> Iterator[Ledger]:
    """The ledger at `path`, created where it is missing. Raises `HpoError` where it is damaged."""
    with opened(path) as connection:
        yield Ledger(connection, server)
