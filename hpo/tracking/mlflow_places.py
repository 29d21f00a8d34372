"""Where MLflow's store says that files lie: absolute places, which have to follow a home that is moved."""

from __future__ import annotations

import sqlite3
import sys

from hpo.lock import exclusive
from hpo.paths import Home
from hpo.sqlite import opened

EXPERIMENT = "hpo"
_PLACES = (
    ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
    ("model_versions", "source"), ("model_versions", "storage_location"),
)  # fmt: skip
"""Tables and columns of MLflow 3 that hold the place of files. It has no call that changes one."""


def follow_move(home: Home) -> None:
    """Where the home was moved, or copied, since its store was written: name its files by where they lie now.

    All in one transaction. The place where the home lay before is not touched.
    """
    here = home.artifacts.as_uri()
    with exclusive(home.mlflow_lock), opened(home.mlflow_db) as store:
        before = _recorded_place(store)
        if before is None or before == here:
            return
        store.execute("BEGIN IMMEDIATE")
        for table, column in _PLACES:
            store.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608  # names of ours
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (here, len(before) + 1, before, len(before) + 1, f"{before}/"),
            )
        store.execute("COMMIT")  # without it, closing gives everything up
    print(f"the home has moved: MLflow's store now finds its files in {home.artifacts}", file=sys.stderr, flush=True)


def _recorded_place(store: sqlite3.Connection) -> str | None:
    """The folder of all artifacts as the store knows it; None before the first sweep."""
    row = store.execute("SELECT artifact_location FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone()
    return row[0] if row and row[0] and row[0].startswith("file:") else None
