"""The MLflow room for the store itself: a database in the home, made whole or not at all."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

# Before MLflow is imported: it reads both then.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient

from hpo.lock import exclusive
from hpo.paths import Home
from hpo.sqlite import usable, wait_while_locked
from hpo.tracking.mlflow_places import follow_move


def quiet_mlflow() -> None:
    """MLflow tells every step at INFO, by loggers that set their own level at import: turn them all down."""
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] in ("mlflow", "alembic"):
            # A store that cannot be written is told by the exception; the log would add its traceback.
            level = logging.CRITICAL if name.startswith("mlflow.store") else logging.WARNING
            logging.getLogger(name).setLevel(level)


def client(home: Home) -> MlflowClient:
    """A client of the home's own store; its first use makes the database (a few seconds, once).

    Raises `HpoError` where something that is no database is in its place.
    """
    quiet_mlflow()
    wait_while_locked(home.mlflow_db)
    with exclusive(home.mlflow_lock):
        if not usable(home.mlflow_db):
            _make_store(home.mlflow_db)
    follow_move(home)
    return _client(home.mlflow_db)


def _make_store(database: Path) -> None:
    """MLflow's tables come from dozens of migrations, and a kill between two leaves a database that no later start can
    mend: so they are made aside, and the whole database appears by rename."""
    aside = database.with_name("mlflow.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    _client(aside / database.name).search_experiments(max_results=1)
    os.replace(aside / database.name, database)
    shutil.rmtree(aside)


def _client(database: Path) -> MlflowClient:
    uri = f"sqlite:///{database}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)
