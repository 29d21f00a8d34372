"""MLflow's own UI on the home's store, on loopback."""

from __future__ import annotations

import os
import sys

from hpo.errors import UsageError
from hpo.paths import Home
from hpo.sqlite import usable
from hpo.tracking.mlflow_places import follow_move

HOST = "127.0.0.1"


def serve_ui(home: Home, port: int) -> None:
    """Replace this process by MLflow's server. Raises `UsageError` when there is no store yet."""
    if not usable(home.mlflow_db):
        raise UsageError(f"nothing to show yet: there is no store at {home.mlflow_db}; run a sweep first")
    follow_move(home)
    print(f"MLflow UI on http://{HOST}:{port} (Ctrl-C ends it)", flush=True)
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{home.mlflow_db}",
        "--artifacts-destination", home.artifacts.as_uri(), "--host", HOST, "--port", str(port), "--workers", "1",
        "--uvicorn-opts", "--log-level warning",
    ]  # fmt: skip
    os.environ.update(
        {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING", "PYTHONWARNINGS": "ignore"}
    )
    os.execv(sys.executable, command)  # noqa: S606  # our own interpreter with a fixed argument list
