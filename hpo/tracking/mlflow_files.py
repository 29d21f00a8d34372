"""Files beside MLflow's runs. MLflow's client is not asked: it keeps a queue and threads for every run, forever."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository


def files_of(client: MlflowClient, run_id: str) -> ArtifactRepository:
    """The store of a run's files."""
    return get_artifact_repository(client.get_run(run_id).info.artifact_uri)


def put_text(client: MlflowClient, run_id: str, name: str, text: str) -> None:
    """Put a text as the file `name` beside a run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_text(text, encoding="utf-8")
        files_of(client, run_id).log_artifact(str(path))
