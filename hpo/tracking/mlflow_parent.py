"""The run of a whole sweep in MLflow: what it was asked, its data, and at its end the champion and what it cost."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from hpo.config.plain_yaml import as_yaml
from hpo.config.sweep_config import SweepConfig
from hpo.paths import Home
from hpo.tracking.comparison import saved_view, view_tag
from hpo.tracking.metric_names import safe_name
from hpo.tracking.mlflow_data import dataset_inputs
from hpo.tracking.mlflow_deletion import run_folder
from hpo.tracking.mlflow_files import files_of, put_text
from hpo.tracking.mlflow_places import forget_metrics, forget_params
from hpo.tracking.mlflow_runs import SweepRuns
from trainers.protocol.events import PreparedData

if TYPE_CHECKING:
    from hpo.report.facts import ReportFacts

_NAMES = "metric_names.json"


class ParentRun:
    """The run below which MLflow shows all runs of a sweep."""

    def __init__(
        self, client: MlflowClient, home: Home, config: SweepConfig, runs: SweepRuns, origin: Mapping[str, str]
    ) -> None:  # fmt: skip
        """Find the sweep's run, or create it; `origin` are tags that say where the sweep runs."""
        self._client = client
        self._home = home
        self._config = config
        self._experiment_id = runs.experiment_id
        self.id = runs.find(kind="sweep") or self._created(runs)
        runs.adopt_children(self.id)
        self._renamed = self._names_before()
        """Names in MLflow -> names of the metrics, where they differ."""
        self._client.update_run(self.id, status="RUNNING")
        for name, value in origin.items():
            self._client.set_tag(self.id, name, value)
        self._arrange()

    def _created(self, runs: SweepRuns) -> str:
        tags = {"hpo.sweep": self._config.name, "hpo.kind": "sweep", "hpo.task": self._config.task}
        return runs.create(self._config.name, tags)

    def _arrange(self) -> None:
        """The view in which MLflow's page of runs opens on this sweep's trials."""
        now = int(time.time() * 1000)
        view = saved_view(self._config.name, self._config.space, self._config.objectives, now)
        self._client.set_experiment_tag(self._experiment_id, view_tag(self._config.name), view)

    def describe(self, prepared: PreparedData) -> None:
        """Write the file, the configuration with all defaults, and the data sets where it lacks them."""
        if not self._client.get_run(self.id).inputs.dataset_inputs:
            self._client.log_inputs(self.id, dataset_inputs(self._config.data, prepared))
        files = files_of(self._client, self.id)
        files.log_artifact(str(self._config.file), "file")
        put_text(self._client, self.id, "config.yaml", as_yaml(self._config.resolved()))

    def named(self, values: Mapping[str, float]) -> dict[str, float]:
        """Values by names that MLflow accepts; `metric_names.json` of the run maps these to the metrics."""
        named = {safe_name(name): value for name, value in values.items()}
        renamed = {safe: name for safe, name in zip(named, values, strict=True) if safe != name}
        if not renamed.keys() <= self._renamed.keys():
            self._renamed |= renamed
            self.put(_NAMES, json.dumps(self._renamed, indent=2))
        return named

    def _names_before(self) -> dict[str, str]:
        """What an earlier session wrote; nothing where a person has changed the file to something else."""
        try:
            found = json.loads((run_folder(self._home, self.id) / "artifacts" / _NAMES).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def put(self, name: str, text: str) -> None:
        """Put a text as a file beside the run."""
        put_text(self._client, self.id, name, text)

    def put_folder(self, folder: Path) -> None:
        """Put the files of a folder beside the run."""
        files_of(self._client, self.id).log_artifacts(str(folder))

    def best_so_far(self, finished: int, value: float) -> None:
        """Write the best value so far; the x axis is the number of finished trials."""
        name = safe_name(f"best_so_far/{self._config.objective.metric}")
        self._client.log_metric(self.id, name, value, step=finished)

    def finish(self, facts: ReportFacts) -> None:
        """Write the champion with its numbers and settings, and a description for people; close the run as FINISHED."""
        from hpo.tracking.sweep_end import OF_THE_END, end_numbers, end_params, end_tags  # late, as the report's facts

        now, numbers = int(time.time() * 1000), self.named(end_numbers(facts))
        forget_params(self._home, self.id)
        self._client.log_batch(
            self.id,
            metrics=[Metric(name, value, now, 0) for name, value in numbers.items()],
            params=[Param(safe_name(name), str(value)) for name, value in end_params(facts).items()],
            tags=[RunTag(name, value) for name, value in end_tags(facts, self._experiment_id, self.id).items()],
        )
        known = self._client.get_run(self.id).data.metrics
        forget_metrics(self._home, self.id, [n for n in known if n.startswith(OF_THE_END) and n not in numbers])
        self._client.set_terminated(self.id, "FINISHED")
