"""The requests to a tracking server by which a home's runs are copied there; each fails as a `RemoteProblem`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import (
    DatasetInput,
    Experiment,
    LifecycleStage,
    LoggedModel,
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
    RunStatus,
    RunTag,
    ViewType,
)
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from hpo.tracking.mlflow_places import COPY_TAG
from hpo.tracking.remote.problems import Forbidden, Missing, Refused, plain_problems
from hpo.tracking.remote.source import LocalFile

_THROUGH_SERVER = ("mlflow-artifacts", "http", "https")

Point = tuple[int, int, str]
"""Time, step and value of a metric, as text so that NaN equals NaN."""


def point_of(metric: Metric) -> Point:
    """What tells one value of a metric from another."""
    return metric.timestamp, metric.step, repr(float(metric.value))


@contextmanager
def _reading() -> Iterator[None]:
    """As `plain_problems`, but 403 is `Missing`: so a server with logins answers about what it does not have.

    Only an administrator hears 404.
    """
    try:
        with plain_problems():
            yield
    except Forbidden as answer:
        raise Missing(str(answer)) from answer


class RemoteStore:
    """One tracking server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.written = 0
        """How many requests have changed something there."""
        self._client = MlflowClient(tracking_uri=url, registry_uri=url)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with plain_problems():
            yield
        self.written += 1

    # --- experiments and runs ----------------------------------------------------------------------

    def experiment(self, name: str, known_id: str | None) -> Experiment:
        """The experiment of that id, or else of that name, also a deleted one; a missing one is created."""
        with plain_problems():
            found = self._client.get_experiment(known_id) if known_id else self._client.get_experiment_by_name(name)
        return self._created_experiment(name) if found is None else found

    def revive_experiment(self, experiment_id: str) -> None:
        """Restore an experiment that a person has deleted, with its runs."""
        with self._writing():
            self._client.restore_experiment(experiment_id)

    def _created_experiment(self, name: str) -> Experiment:
        try:
            with self._writing():
                return self._client.get_experiment(self._client.create_experiment(name))
        except Refused:
            with plain_problems():
                found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return found  # another home has just created it

    def tag_experiment(self, experiment_id: str, name: str, value: str) -> None:
        """Set a tag of an experiment."""
        with self._writing():
            self._client.set_experiment_tag(experiment_id, name, value)

    def copies(self, experiment_id: str, local: str) -> list[Run]:
        """The copies of a run of the home: one, or two where the server answered too late; those that live first."""
        with plain_problems():
            runs = self._client.search_runs([experiment_id], f"tags.`{COPY_TAG}` = '{local}'", ViewType.ALL)
        return sorted(runs, key=lambda run: (run.info.lifecycle_stage == LifecycleStage.DELETED, run.info.run_id))

    def create(self, experiment_id: str, local: Run, tags: Mapping[str, str]) -> Run:
        """Create the copy of a run, with these tags."""
        marked = {**tags, COPY_TAG: local.info.run_id}
        with self._writing():
            return self._client.create_run(experiment_id, local.info.start_time, marked, local.info.run_name)

    def read(self, run_id: str) -> Run:
        """A run with all that it has. Raises `Missing` where there is none, also not a deleted one."""
        with _reading():
            return self._client.get_run(run_id)

    def has(self, run_id: str, sweep: str) -> bool:
        """Whether there is a run of that very id and sweep, which is no copy: then this server has the home's store."""
        try:
            return bool(self.read(run_id).data.tags.get("hpo.sweep") == sweep)
        except Missing:
            return False

    def revive(self, run: Run) -> None:
        """Restore a run that a person has deleted, and its experiment."""
        if self.experiment("", run.info.experiment_id).lifecycle_stage == LifecycleStage.DELETED:
            self.revive_experiment(run.info.experiment_id)
        if self.read(run.info.run_id).info.lifecycle_stage == LifecycleStage.DELETED:
            with self._writing():
                self._client.restore_run(run.info.run_id)

    def delete(self, run_id: str) -> None:
        """Delete a run."""
        with self._writing():
            self._client.delete_run(run_id)

    def history(self, run_id: str, name: str) -> set[Point]:
        """All values of a metric."""
        with plain_problems():
            return {point_of(metric) for metric in self._client.get_metric_history(run_id, name)}

    def log(self, run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]) -> None:
        """Write values, parameters and tags, in as few requests as MLflow allows."""
        with self._writing():
            self._client.log_batch(run_id, metrics, params, tags)

    def log_inputs(self, run_id: str, datasets: Sequence[DatasetInput], models: Sequence[LoggedModelInput]) -> None:
        """Write which data sets and models a run has read."""
        with self._writing():
            self._client.log_inputs(run_id, list(datasets), list(models))

    def set_state(self, run_id: str, name: str, status: str, end_time: int | None) -> None:
        """Set a run's name and state. The client's public calls take no end, or print a link for each run."""
        with self._writing():
            self._client._tracking_client.store.update_run_info(run_id, RunStatus.from_string(status), end_time, name)

    # --- models and files --------------------------------------------------------------------------

    def model_copies(self, experiment_id: str, local: str) -> list[LoggedModel]:
        """The copies of a logged model of the home."""
        with plain_problems():
            return list(self._client.search_logged_models([experiment_id], f"tags.`{COPY_TAG}` = '{local}'"))

    def create_model(self, experiment_id: str, local: LoggedModel, run_id: str, tags: Mapping[str, str]) -> LoggedModel:
        """Create the copy of a logged model, as one of the run `run_id`."""
        with self._writing():
            return self._client.create_logged_model(
                experiment_id, local.name, run_id, {**tags, COPY_TAG: local.model_id}, local.params, local.model_type
            )

    def read_model(self, model_id: str) -> LoggedModel:
        """A logged model. Raises `Missing` where there is none."""
        with _reading():
            return self._client.get_logged_model(model_id)

    def tag_model(self, model_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a logged model."""
        with self._writing():
            self._client.set_logged_model_tags(model_id, dict(tags))

    def finalize_model(self, model_id: str, status: LoggedModelStatus) -> None:
        """Set the final state of a logged model."""
        with self._writing():
            self._client.finalize_logged_model(model_id, status)

    def log_outputs(self, run_id: str, models: Sequence[LoggedModelOutput]) -> None:
        """Write which models a run has made. A model that the run already has is an error."""
        with self._writing():
            self._client.log_outputs(run_id, list(models))

    def put_file(self, place: str, file: LocalFile) -> None:
        """Write a file of the run or model with that artifact URI, in place of an earlier one.

        Raises `FileNotFoundError` where it is gone, and `Refused` for a place that the server does not write itself:
        this machine may have a folder of that name.
        """
        if urlsplit(place).scheme not in _THROUGH_SERVER:
            raise Refused("takes no files (it was started with --no-serve-artifacts)")
        folder = PurePosixPath(file.path).parent.as_posix()
        with self._writing():
            get_artifact_repository(place, self.url).log_artifact(str(file.file), None if folder == "." else folder)
