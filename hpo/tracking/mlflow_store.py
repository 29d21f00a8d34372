"""MLflow's database in the home, which is created completely or not at all."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

# Set before MLflow is imported, because it reads them at import.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient

from hpo.databases.sqlite import usable, wait_while_locked
from hpo.lock import exclusive
from hpo.paths import Home
from hpo.tracking.mlflow_places import follow_move
from hpo.tracking.mlflow_schema import check_store


def quiet_mlflow() -> None:
    """Silence MLflow's loggers below WARNING; they set their level at import, so call this after it."""
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] in ("mlflow", "alembic"):
            # An exception reports a store that cannot be written; the log would add a traceback.
            level = logging.CRITICAL if name.startswith("mlflow.store") else logging.WARNING
            logger = logging.getLogger(name)
            if logger.level != level:  # setting it empties the caches of all loggers, of which there may be thousands
                logger.setLevel(level)


def client(home: Home) -> MlflowClient:
    """A client of the home's database, which the first call creates (a few seconds, once).

    Raises `HpoError` where something else is in its place, or a store of another MLflow.
    """
    quiet_mlflow()
    wait_while_locked(home.mlflow_db)
    with exclusive(home.mlflow_lock):
        if not usable(home.mlflow_db):
            aside = home.mlflow_db.with_name("mlflow.new")
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(create_database(aside), home.mlflow_db)
            shutil.rmtree(aside)
    check_store(home.mlflow_db)
    follow_move(home)
    return _client(home.mlflow_db)


def create_database(folder: Path) -> Path:
    """Create a database in a new folder on the home's disk, to be moved into place; returns its path.

    MLflow creates its tables in dozens of migrations, and a kill between two of them leaves a database that no later
    start can repair.
    """
    quiet_mlflow()
    folder.mkdir()
    database = folder / "mlflow.db"
    _client(database).search_experiments(max_results=1)
    return database


def put_in_place(database: Path, home: Home) -> None:
    """Move a new database into the home, unless another sweep has created one meanwhile."""
    with exclusive(home.mlflow_lock):
        if not usable(home.mlflow_db):
            beside = home.mlflow_db.with_name(".mlflow.db.tmp")
            shutil.move(database, beside)  # by copying where the folders of sweeps are on another disk
            os.replace(beside, home.mlflow_db)


def _client(database: Path) -> MlflowClient:
    uri = f"sqlite:///{database}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)
