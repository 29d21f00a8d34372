"""The absolute paths of files in MLflow's database, which must follow a home that is moved."""

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
"""Tables and columns of MLflow 3 that contain paths of files. MLflow has no call to change them."""


def follow_move(home: Home) -> None:
    """Where the home was moved or copied, update the paths in MLflow's database, in one transaction.

    The home's earlier folder is not touched.
    """
    here = home.artifacts.as_uri()
    with exclusive(home.mlflow_lock), opened(home.mlflow_db) as store:
        before = _recorded_place(store)
        if before is None or before == here:
            return
        store.execute("BEGIN IMMEDIATE")
        for table, column in _PLACES:
            store.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608  # names from `_PLACES`
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (here, len(before) + 1, before, len(before) + 1, f"{before}/"),
            )
        store.execute("COMMIT")  # without it, closing rolls everything back
    print(f"the home has moved: MLflow now finds its files in {home.artifacts}", file=sys.stderr, flush=True)


def _recorded_place(store: sqlite3.Connection) -> str | None:
    """The URI of the artifacts' folder in MLflow's database; None before the first sweep."""
    row = store.execute("SELECT artifact_location FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone()
    return row[0] if row and row[0] and row[0].startswith("file:") else None
