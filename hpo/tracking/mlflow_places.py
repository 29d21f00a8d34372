"""MLflow's database read and changed without MLflow: paths that follow a home, and which experiment a sweep has."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hpo.databases.sqlite import opened, usable
from hpo.lock import exclusive
from hpo.paths import Home

EXPERIMENT = "hpo"
"""The experiment of bundles, and of all sweeps that began before each had one of its own."""
SWEEP_TAG = "hpo.sweep"
"""Tag of a run, and of an experiment that one sweep has to itself: the sweep's name."""
BUNDLE_TAG = "hpo.bundle"
"""Tag of a run that no sweep has: the name of the bundle whose files it has."""
COPY_TAG = "hpo.copy_of"
"""Tag of a run or model on a tracking server: its id in the home that it comes from. By it, a copy is found again."""
SHARED_TAG = "hpo.shared"
"""Tag of an experiment that several sweeps share."""
_PLACES = (
    ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
    ("model_versions", "source"), ("model_versions", "storage_location"),
)  # fmt: skip
"""Tables and columns of MLflow 3 that contain paths of files. MLflow has no call to change them."""
_OF_MODELS = (
    ("logged_model_metrics", "model_id"), ("logged_model_params", "model_id"), ("logged_model_tags", "model_id"),
    ("inputs", "destination_id"), ("logged_models", "model_id"),
)  # fmt: skip
"""Tables of MLflow 3 about logged models; that of the models themselves is the last."""
_OURS = """
SELECT artifact_location FROM experiments AS e WHERE artifact_location LIKE 'file:%' AND (
    EXISTS (SELECT 1 FROM experiment_tags AS t WHERE t.experiment_id = e.experiment_id AND key IN (?, ?)) OR EXISTS (
    SELECT 1 FROM runs AS r JOIN tags USING (run_uuid) WHERE r.experiment_id = e.experiment_id AND key IN (?, ?))
) LIMIT 1"""
"""The place of any experiment of ours, whatever its name is now; one named `hpo` may be of another program."""
_OF_RUNS = """
SELECT t.value, CAST(e.experiment_id AS TEXT), e.lifecycle_stage = 'active' FROM tags AS t
JOIN runs AS r USING (run_uuid) JOIN experiments AS e ON e.experiment_id = r.experiment_id
WHERE t.key = ? AND t.value = COALESCE(?, t.value) GROUP BY t.value, e.experiment_id
ORDER BY MAX(r.start_time) DESC"""
_OF_TAG = """
SELECT value, CAST(experiment_id AS TEXT), lifecycle_stage = 'active' FROM experiment_tags
JOIN experiments USING (experiment_id) WHERE key = ? AND value = ?"""
_SHARED = """
SELECT CAST(experiment_id AS TEXT) FROM experiment_tags JOIN experiments USING (experiment_id)
WHERE key = ? AND value = ? AND artifact_location = ? ORDER BY lifecycle_stage = 'active' DESC, experiment_id LIMIT 1"""


@dataclass(frozen=True)
class SweepExperiment:
    """The experiment that has the runs of a sweep."""

    sweep: str
    id: str
    is_active: bool
    """False where a person has deleted it."""


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
    row = store.execute(_OURS, (SWEEP_TAG, SHARED_TAG, SWEEP_TAG, BUNDLE_TAG)).fetchone()
    return str(row[0]) if row else None


def experiments_of_sweeps(home: Home, sweep: str | None = None) -> list[SweepExperiment]:
    """The experiment of each sweep, or of one; the sweep that ran last comes first. Empty before the first sweep.

    It is the experiment that has the sweep's runs, deleted ones too, whatever a person calls it.
    """
    if not usable(home.mlflow_db, to_write=False):
        return []
    with opened(home.mlflow_db) as store:
        return _experiments(store, sweep)


def experiment_of_sweep(home: Home, sweep: str) -> SweepExperiment | None:
    """The experiment that has the runs of a sweep; None where there is none yet."""
    return next(iter(experiments_of_sweeps(home, sweep)), None)


def experiment_at_once(home: Home, sweep: str) -> SweepExperiment | None:
    """The same without waiting for a lock; None also where the database cannot be read now."""
    try:
        with closing(sqlite3.connect(f"file:{home.mlflow_db}?mode=ro", timeout=0.5, uri=True)) as store:
            return next(iter(_experiments(store, sweep)), None)
    except sqlite3.Error:
        return None  # whoever opens MLflow hears why


def _experiments(store: sqlite3.Connection, sweep: str | None) -> list[SweepExperiment]:
    rows = store.execute(_OF_RUNS, (SWEEP_TAG, sweep)).fetchall()
    if not rows and sweep is not None:  # made just before a crash, or its runs were deleted for good
        rows = store.execute(_OF_TAG, (SWEEP_TAG, sweep)).fetchall()
    found = {name: SweepExperiment(name, number, bool(active)) for name, number, active in reversed(rows)}
    return list(reversed(found.values()))


def shared_experiment_id(home: Home, name: str) -> str | None:
    """The id of the experiment that was made for all who share `name`, which may be deleted or renamed; else None."""
    with opened(home.mlflow_db) as store:
        row = store.execute(_SHARED, (SHARED_TAG, name, home.artifacts.as_uri())).fetchone()
    return str(row[0]) if row else None


def registered_versions(database: Path) -> set[str]:
    """All versions that are registered in a database, as NAME/VERSION."""
    with opened(database) as store:
        rows = store.execute("SELECT name, version FROM model_versions WHERE current_stage != 'Deleted_Internal'")
        return {f"{name}/{version}" for name, version in rows}


def experiment_tag(home: Home, experiment: SweepExperiment, key: str) -> str | None:
    """A tag of an experiment; None where it has none."""
    with opened(home.mlflow_db) as store:
        query = "SELECT value FROM experiment_tags WHERE experiment_id = ? AND key = ?"
        row = store.execute(query, (experiment.id, key)).fetchone()
    return str(row[0]) if row else None


def set_experiment_tag(home: Home, experiment: SweepExperiment, key: str, value: str) -> None:
    """Write a tag of an experiment as MLflow does, without its two seconds of import."""
    with opened(home.mlflow_db) as store:
        query = "INSERT OR REPLACE INTO experiment_tags (experiment_id, key, value) VALUES (?, ?, ?)"
        store.execute(query, (experiment.id, key, value))


def forget_experiment_tag(home: Home, key: str) -> None:
    """Remove a tag from every experiment that has it."""
    with opened(home.mlflow_db) as store:
        store.execute("DELETE FROM experiment_tags WHERE key = ?", (key,))


def forget_params(home: Home, run_id: str) -> None:
    """Remove the parameters of a run, which MLflow never lets go: a sweep that goes on may have another champion."""
    with opened(home.mlflow_db) as store:
        store.execute("DELETE FROM params WHERE run_uuid = ?", (run_id,))


def forget_metrics(home: Home, run_id: str, names: Collection[str]) -> None:
    """Remove metrics of a run: the champion of an edited sweep may have fewer numbers."""
    with opened(home.mlflow_db) as store:
        store.execute("BEGIN IMMEDIATE")
        for table in ("metrics", "latest_metrics"):
            for name in names:
                store.execute(f"DELETE FROM {table} WHERE run_uuid = ? AND key = ?", (run_id, name))  # noqa: S608  # above
        store.execute("COMMIT")


def place_model(home: Home, model_id: str, source: str) -> None:
    """Have a logged model's files be those at `source`: MLflow would keep a second copy of them."""
    with opened(home.mlflow_db) as store:
        store.execute("UPDATE logged_models SET artifact_location = ? WHERE model_id = ?", (source, model_id))


def forget_models(home: Home, *, run_id: str = "", source: str = "") -> None:
    """Remove the logged models of a run, or those whose files are at `source`; the files are the caller's."""
    chosen = "SELECT model_id FROM logged_models WHERE source_run_id = ? OR artifact_location = ?"
    with opened(home.mlflow_db) as store:
        store.execute("BEGIN IMMEDIATE")
        for table, column in _OF_MODELS:
            query = f"DELETE FROM {table} WHERE {column} IN ({chosen})"  # noqa: S608  # names from `_OF_MODELS`
            store.execute(query, (run_id, source))
        store.execute("COMMIT")
