"""Deletes runs from MLflow for good, with their files, as `mlflow gc` does: files first, the record last."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from mlflow.entities import LifecycleStage, ViewType

from hpo.garbage import discard
from hpo.paths import Home
from hpo.tracking.comparison import view_tag
from hpo.tracking.mlflow_places import BUNDLE_TAG, SWEEP_TAG, forget_experiment_tag, forget_models
from hpo.tracking.mlflow_store import client

_PAGE = 1000


def runs_of(home: Home, sweep: str) -> list[str]:
    """The ids of all runs of a sweep, deleted ones too."""
    return [run.info.run_id for run in _search(home, ViewType.ALL, f"tags.`hpo.sweep` = '{sweep}'")]


def bundle_runs(home: Home, name: str) -> list[str]:
    """The ids of all runs of a bundle, deleted ones too."""
    return [run.info.run_id for run in _search(home, ViewType.ALL, f"tags.`{BUNDLE_TAG}` = '{name}'")]


def deleted_runs(home: Home) -> dict[str, str | None]:
    """The ids of all runs that were deleted in MLflow and are kept there still, each with its sweep."""
    return {run.info.run_id: run.data.tags.get("hpo.sweep") for run in _search(home, ViewType.DELETED_ONLY)}


def delete_for_good(home: Home, run_ids: Collection[str]) -> None:
    """Delete runs with their files. A kill in between leaves runs that count as deleted, for `hpo gc`."""
    store = client(home)
    for run_id in run_ids:
        if store.get_run(run_id).info.lifecycle_stage != LifecycleStage.DELETED:
            store.delete_run(run_id)
        forget_models(home, run_id=run_id)
        discard(run_folder(home, run_id))
        store._tracking_client.store._hard_delete_run(run_id)  # MLflow has no public call for it


def delete_experiment_of(home: Home, sweep: str) -> None:
    """Delete the experiment that a deleted sweep had to itself; one in which a person has put other runs stays, without
    the view of the sweep."""
    store = client(home)
    forget_experiment_tag(home, view_tag(sweep))
    for found in store.search_experiments(ViewType.ALL, filter_string=f"tags.`{SWEEP_TAG}` = '{sweep}'"):
        if store.search_runs([found.experiment_id], run_view_type=ViewType.ALL, max_results=1):
            continue
        if found.lifecycle_stage != LifecycleStage.DELETED:
            store.delete_experiment(found.experiment_id)
        store._tracking_client.store._hard_delete_experiment(found.experiment_id)  # MLflow has no public call for it


def run_folder(home: Home, run_id: str) -> Path:
    """The folder of a run's files. Raises `ValueError` for an id that could leave the home."""
    if not run_id.isalnum():
        raise ValueError(f"{run_id!r} is not a run id")
    return home.artifacts / run_id


def _search(home: Home, view: int, query: str = "") -> list[Any]:
    store = client(home)
    experiments = [found.experiment_id for found in store.search_experiments(view_type=ViewType.ALL)]
    runs: list[Any] = []
    token = None
    while True:
        page = store.search_runs(experiments, query, view, max_results=_PAGE, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs
