"""Schemas of databases that a library made: which revision one has, and which ones the installed library knows.

Read without the library and without Alembic, both of which take seconds to import.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from hpo.databases.sqlite import opened
from hpo.errors import HpoError
from hpo.remedies import packages_again

Age = Literal["current", "older", "later"]
_LINE = re.compile(r"^(revision|down_revision)(?:\s*:[^=]*)?\s*=\s*(.+)$", re.MULTILINE)
VERSION_TABLE = "alembic_version"
"""Where Alembic keeps a database's revision."""
REVISION_QUERY = f"SELECT version_num FROM {VERSION_TABLE}"  # noqa: S608  # our own constant


@dataclass(frozen=True)
class Migrations:
    """All revisions of a library's schema, from the scripts that it ships."""

    library: str
    head: str
    """The newest one, with which the library works."""
    known: frozenset[str]

    def age(self, revision: str) -> Age:
        """Of a database with that revision: a revision that the library does not know was made by a later one."""
        if revision == self.head:
            return "current"
        return "older" if revision in self.known else "later"

    def check(self, where: str, revision: str) -> None:
        """Raises `HpoError` with the way on where a database has another revision than the library works with."""
        installed, age = _installed(self.library), self.age(revision)
        if age == "older":
            raise HpoError(f"{where}: was made by an earlier {self.library} (schema {revision}); "
                           f"{installed} needs schema {self.head}: hpo upgrade brings it there")  # fmt: skip
        if age == "later":
            raise HpoError(f"{where}: was made by a later {self.library} (schema {revision}, which {installed} "
                           "does not know); install the version that wrote it, or restore a backup")  # fmt: skip


def revision_of(database: Path) -> str:
    """The revision of a SQLite database's schema; empty where it has none: no library has made its tables.

    Raises `HpoError` where the database is damaged.
    """
    with opened(database) as connection:
        known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (VERSION_TABLE,)).fetchone()
        row = connection.execute(REVISION_QUERY).fetchone() if known else None
    return str(row[0]) if row else ""


def optuna_migrations() -> Migrations:
    """Those of the studies' database."""
    return _shipped("optuna", "storages/_rdb/alembic/versions")


def mlflow_migrations() -> Migrations:
    """Those of MLflow's store."""
    return _shipped("mlflow", "store/db_migrations/versions")


def _installed(library: str) -> str:
    """Name and version of the installed one."""
    from importlib.metadata import version  # late: who reads a database of the right version does without

    return f"{library} {version(library)}"


@cache
def _shipped(library: str, folder: str) -> Migrations:
    """Raises `HpoError` where the installed library has another layout than ours knows."""
    spec = find_spec(library)
    scripts = sorted(Path(str(spec.origin)).parent.joinpath(folder).glob("*.py")) if spec else []
    before: dict[str, str | None] = {}
    for script in scripts:
        found = {name: ast.literal_eval(value) for name, value in _LINE.findall(script.read_text(encoding="utf-8"))}
        if "revision" in found:
            before[found["revision"]] = found.get("down_revision")
    heads = before.keys() - set(before.values())
    if len(heads) != 1:
        raise HpoError(f"{_installed(library)}: its migrations are not where hpo expects them; "
                       f"{packages_again(library)} installs a version that it knows")  # fmt: skip
    return Migrations(library, heads.pop(), frozenset(before))
