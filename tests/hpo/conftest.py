from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.postgres import Server, server


@pytest.fixture(autouse=True, scope="session")
def _databases_without_fsync() -> Iterator[None]:
    """These tests kill no machine: waiting for the disk would take most of their time."""

    def relax(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", relax)
    yield
    event.remove(Engine, "connect", relax)


@pytest.fixture(autouse=True, scope="session")
def _migrations_read_once() -> Iterator[None]:
    """Optuna reads its ten migration scripts whenever a database is opened, which takes longer than most tests."""
    manager = optuna.storages._rdb.storage._VersionManager
    read = manager.get_head_version
    known: list[str] = []

    def head_version(self: Any) -> str:
        known[:] = known or [read(self)]
        return known[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manager, "get_head_version", head_version)
        yield


@pytest.fixture(scope="session")
def _empty_studies(tmp_path_factory: pytest.TempPathFactory, _databases_without_fsync: None) -> Path:
    path = tmp_path_factory.mktemp("studies") / "studies.db"
    optuna.storages.RDBStorage(f"sqlite:///{path}").engine.dispose()
    return path


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all tests of this process, because making its first database takes longer than most tests."""
    with server(tmp_path_factory.mktemp("postgresql")) as running:
        yield running


@pytest.fixture
def database(tmp_path: Path, _empty_studies: Path) -> Path:
    """A database without studies: a copy, because making its tables takes longer than most tests."""
    return Path(shutil.copy(_empty_studies, tmp_path / "studies.db"))
