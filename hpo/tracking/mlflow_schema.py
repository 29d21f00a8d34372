"""The schema of MLflow's store: whether it is the installed MLflow's, and how it becomes that; without importing it"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from hpo.databases.migrations import mlflow_migrations, revision_of
from hpo.errors import HpoError
from hpo.module_command import module_command
from hpo.quoting import clipped


def check_store(database: Path) -> None:
    """Raises `HpoError` where another MLflow made the store.

    MLflow itself migrates an older store as soon as it opens it, where that lacks a table: without a copy, and without
    a word.
    """
    if revision := revision_of(database):
        mlflow_migrations().check(str(database), revision)


def upgrade_store(database: Path) -> None:
    """Bring a store to the installed MLflow's schema, by its own command. Raises `HpoError` with what went wrong."""
    command = module_command("mlflow", "db", "upgrade", f"sqlite:///{database}")
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise HpoError(f"{database}: mlflow db upgrade failed: {clipped(last, 300)}")
