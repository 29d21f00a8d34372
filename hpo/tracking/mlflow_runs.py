"""Finds a sweep's runs in MLflow by their tags, and restores those that a person has deleted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, ViewType

from hpo.tracking.mlflow_places import COPY_TAG

_PAGE = 1000
NAMES_SHOWN = 10


class SweepRuns:
    """The runs of one sweep; a run that is missing in MLflow is created again, and never ends the sweep."""

    def __init__(self, client: MlflowClient, experiment_id: str, sweep: str, say: Callable[[str], None]) -> None:
        self._client = client
        self._sweep = sweep
        self._say = say
        self.experiment_id = experiment_id

    def create(self, name: str, tags: Mapping[str, str]) -> str:
        """Create a run and return its id."""
        return str(self._client.create_run(self.experiment_id, run_name=name, tags=dict(tags)).info.run_id)

    def find(self, **tags: str) -> str | None:
        """The id of a run with these `hpo.` tags, or None; a deleted run is restored.

        So a run that was created just before a crash is used again.
        """
        for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY):
            if runs := self._search(view, tags, 1):
                return self._alive(runs[:1])[0]
        return None

    def living(self, run_id: str | None) -> str | None:
        """The run's id, after restoring a deleted run; None where the run is permanently deleted."""
        if run_id is None:
            return None
        runs = self._search(ViewType.ALL, {}, 1, f"attributes.run_id = '{run_id}'")
        return self._alive(runs)[0] if runs else None

    def gone(self, run_ids: Collection[str]) -> set[str]:
        """The ids of runs that are permanently deleted; deleted runs that still exist are restored."""
        return set(run_ids) - set(self._alive(self._search(ViewType.ALL, {})))

    def adopt_children(self, parent_id: str) -> None:
        """Move the runs of the sweep's trials and repeats below their parent, where it was created again."""
        children = self._search(ViewType.ALL, {}, query=f"tags.`mlflow.parentRunId` != '{parent_id}'")
        for run_id in self._alive(children):
            self._client.set_tag(run_id, "mlflow.parentRunId", parent_id)

    def end_left_open(self, besides: str) -> None:
        """End the runs that a killed session left RUNNING, `besides` the one of that id.

        What goes on is RUNNING again. An edit, a spent budget or a race may have no use for the others any more.
        """
        for run in self._search(ViewType.ACTIVE_ONLY, {}, query="attributes.status = 'RUNNING'"):
            if run.info.run_id != besides:
                self._client.set_terminated(run.info.run_id, "KILLED")

    def _alive(self, runs: Sequence[Any]) -> list[str]:
        """The ids of runs, after restoring the deleted ones."""
        deleted = [run.info for run in runs if run.info.lifecycle_stage == LifecycleStage.DELETED]
        for info in deleted:
            self._client.restore_run(info.run_id)
            if info.status == "RUNNING":  # a killed session left it so
                self._client.set_terminated(info.run_id, "KILLED")
        if deleted:
            names = ", ".join(info.run_name for info in deleted[:NAMES_SHOWN])
            more = f" and {len(deleted) - NAMES_SHOWN} more" if len(deleted) > NAMES_SHOWN else ""
            self._say(f"runs that were deleted in MLflow are restored: {names}{more}")
        return [str(run.info.run_id) for run in runs]

    def _search(self, view: int, tags: Mapping[str, str], most: int | None = None, query: str = "") -> list[Any]:
        """The runs of this sweep with these tags, newest first, without copies that a server on this store has made."""
        wanted = {"sweep": self._sweep, **tags}
        clauses = [f"tags.`hpo.{name}` = '{value}'" for name, value in wanted.items()]
        runs: list[Any] = []
        token = None
        while True:
            page = self._client.search_runs(
                [self.experiment_id], " and ".join([*clauses, query] if query else clauses), view,
                max_results=most or _PAGE, page_token=token,
            )  # fmt: skip
            runs += [run for run in page if COPY_TAG not in run.data.tags]
            token = page.token
            if not token or (most and len(runs) >= most):
                return runs
