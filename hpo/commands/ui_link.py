"""Where `hpo ui` shows a sweep, for commands that only say so: serving takes modules that they do without."""

from __future__ import annotations

from hpo.paths import Home
from hpo.tracking.comparison import link
from hpo.tracking.mlflow_places import experiment_at_once

HOST = "127.0.0.1"
PORT = 5000


def comparison_link(home: Home, sweep: str) -> str | None:
    """Where `hpo ui` shows a sweep; None where MLflow does not have it, or a person has deleted its experiment."""
    found = experiment_at_once(home, sweep)
    return link(f"http://{HOST}:{PORT}/", found.id, sweep) if found and found.is_active else None
