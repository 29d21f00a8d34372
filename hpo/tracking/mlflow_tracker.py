"""Writes a sweep to MLflow: one parent run per sweep and one child run per trial, always by explicit run id.

MLflow is a view of the study, from which everything here can be written again. The x axis of every curve is training
examples seen, so that trials with different batch sizes line up.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sqlalchemy.exc import SQLAlchemyError

from hpo.config.sweep_config import SweepConfig
from hpo.executors.base import Fetch, here
from hpo.paths import Home
from hpo.results.records import TrialRecord
from hpo.tracking import curves
from hpo.tracking.metric_names import safe_name
from hpo.tracking.mlflow_runs import SweepRuns
from hpo.tracking.mlflow_store import client
from trainers.protocol.events import Evaluation, PreparedData, Step, TrialResult
from trainers.protocol.files import TrialPaths
from trainers.protocol.trial_spec import TrialSpec

TRACKING_ERRORS = (MlflowException, SQLAlchemyError)
"""The errors of MLflow and SQLAlchemy when the database cannot be written."""
_BATCH = 1000  # the most metrics that MLflow accepts at once
_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


class Tracker:
    """Writes the runs of one sweep."""

    def __init__(
        self, home: Home, config: SweepConfig, inspection: PreparedData,
        say: Callable[[str], None] = lambda text: None, fetch: Fetch = here,
    ) -> None:  # fmt: skip
        """`say` gets a message about everything that was deleted in MLflow and is written again.

        `fetch` is that of the sweep's executor.
        """
        self._client = client(home)
        self._config = config
        self._fetch = fetch
        self._inspection = inspection
        self._all_runs = SweepRuns(self._client, home, config.name, say)
        self._runs: dict[int, str] = {}
        self._pending: dict[int, list[Metric]] = {}
        self._logged_up_to: dict[int, int] = {}
        self._summarized: dict[int, float] = {}
        """Trial -> its seconds, where its run has final numbers: a session was killed right after writing them, or the
        trial was stopped and goes on."""
        self._renamed: dict[str, str] = {}
        """Names in MLflow -> names of the metrics, where they differ."""
        self.parent_id = self._parent()
        self._client.update_run(self.parent_id, status="RUNNING")
        self._describe_sweep()

    def _parent(self) -> str:
        if found := self._all_runs.find(kind="sweep"):
            return found
        tags = {"hpo.sweep": self._config.name, "hpo.kind": "sweep", "hpo.task": self._config.task}
        made = self._all_runs.create(self._config.name, tags)
        self._all_runs.adopt_children(made)
        return made

    def gone(self, run_ids: Collection[str]) -> set[str]:
        """The ids of this sweep's runs that are permanently deleted; deleted runs that still exist are restored."""
        return self._all_runs.gone(run_ids)

    def _describe_sweep(self) -> None:
        config = self._config
        params = _flatten({k: v for k, v in config.resolved().items() if k != "name"})
        self._describe_once(self.parent_id, params)
        self._write(self.parent_id, "config.json", json.dumps(config.resolved(), indent=2))
        self._artifacts(self.parent_id).log_artifact(str(config.file))

    def _describe_once(self, run_id: str, params: Mapping[str, str]) -> None:
        """Write a run's parameters and data set, unless it has them: parameters cannot be changed."""
        run = self._client.get_run(run_id)
        if not run.inputs.dataset_inputs:
            self._client.log_inputs(run_id, [self._dataset()])
        if not run.data.params:
            self._client.log_batch(run_id, params=[Param(safe_name(n), v) for n, v in params.items()])

    def _dataset(self) -> DatasetInput:
        train = self._config.data.train
        where = {"uri": train.source, "config": train.config, "revision": train.revision, "split": train.split}
        profile = {"rows": self._inspection.rows, "duplicates_dropped": self._inspection.duplicates}
        dataset = Dataset(
            name=Path(train.source).name,
            digest=self._inspection.fingerprint[:32],
            source_type="hub" if train.is_hub else "local",
            source=json.dumps({name: value for name, value in where.items() if value is not None}),
            profile=json.dumps(profile),
        )
        return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])

    # --- trials ------------------------------------------------------------------------------------

    def start_trial(self, spec: TrialSpec, record: TrialRecord, *, is_baseline: bool) -> str:
        """Create a trial's run, or continue the run that it had before an interruption; return the run's id."""
        run_id = self._all_runs.living(record.run_id) or self._all_runs.find(
            kind="trial", spec=spec.fingerprint(), trial=str(spec.number)
        )
        if run_id:
            self._adopt(run_id, spec)
        else:
            searched = ", ".join(
                f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in record.params.items()
            )
            tags = {
                "mlflow.parentRunId": self.parent_id, "mlflow.note.content": searched or "default configuration",
                "hpo.sweep": self._config.name, "hpo.kind": "trial", "hpo.trial": str(spec.number),
                "hpo.spec": spec.fingerprint(), "hpo.baseline": str(is_baseline).lower(),
                "hpo.revision": str(record.revision),
            }  # fmt: skip
            if record.reused_from is not None:
                tags["hpo.reused_from"] = record.reused_from
            run_id = self._all_runs.create(f"{self._config.name}-{spec.number:03d}", tags)
        self._take(spec, run_id)
        return run_id

    def start_repeat(self, spec: TrialSpec, trial: int, repeat: int) -> str:
        """Create or continue the run of one repeat of a finalist, and return the run's id.

        `spec.number` identifies the repeat only while it runs; `trial` and `repeat` identify it afterwards.
        """
        run_id = self._all_runs.find(kind="repeat", spec=spec.fingerprint())
        if run_id:
            self._adopt(run_id, spec)
        else:
            tags = {
                "mlflow.parentRunId": self.parent_id, "hpo.sweep": self._config.name, "hpo.kind": "repeat",
                "hpo.repeats": str(trial), "hpo.spec": spec.fingerprint(),
            }  # fmt: skip
            run_id = self._all_runs.create(f"{self._config.name}-{trial:03d}-seed-{repeat}", tags)
        self._take(spec, run_id)
        return run_id

    def _adopt(self, run_id: str, spec: TrialSpec) -> None:
        """Continue a run of an earlier session, and note what it has: MLflow would store repeated values twice."""
        self._client.update_run(run_id, status="RUNNING")
        self._logged_up_to[spec.number] = self._last_step(run_id, spec.metric)
        if (seconds := self._client.get_run(run_id).data.metrics.get("seconds")) is not None:
            self._summarized[spec.number] = seconds

    def _take(self, spec: TrialSpec, run_id: str) -> None:
        self._describe_once(run_id, {name: str(value) for name, value in curves.settings_of(spec).items()})
        self._runs[spec.number] = run_id
        self._pending[spec.number] = []

    def _last_step(self, run_id: str, metric: str) -> int:
        history = self._client.get_metric_history(run_id, safe_name(f"validation/{metric}"))
        return max((m.step for m in history), default=-1)

    def step(self, number: int, step: Step) -> None:
        """Keep a step's metrics until the next evaluation: they are written in batches."""
        if step.loss is None:
            return
        pending = self._pending[number]
        if pending and pending[-1].step >= step.examples:  # another attempt repeats steps that are not written yet
            self._pending[number] = [m for m in pending if m.step < step.examples]
        self._add(number, step.examples, curves.of_step(step))

    def evaluation(self, number: int, evaluation: Evaluation) -> None:
        """Write the metrics of an evaluation and of the steps before it, unless the run has them."""
        if evaluation.examples <= self._logged_up_to.get(number, -1):
            self._pending[number] = []  # another attempt repeats the steps since then
            return
        self._add(number, evaluation.examples, curves.of_evaluation(evaluation))
        self._flush(number)
        self._logged_up_to[number] = evaluation.examples

    def _add(self, number: int, examples: int, values: Mapping[str, float]) -> None:
        if examples <= self._logged_up_to.get(number, -1):
            return  # a resumed trial repeats what the run already has, and MLflow would store it twice
        now = int(time.time() * 1000)
        named = self._named(values)
        self._pending[number] += [Metric(name, value, now, examples) for name, value in named.items()]

    def _named(self, values: Mapping[str, float]) -> dict[str, float]:
        """Values by names that MLflow accepts; `metric_names.json` of the parent run maps these to the metrics."""
        named = {safe_name(name): value for name, value in values.items()}
        renamed = {safe: name for safe, name in zip(named, values, strict=True) if safe != name}
        if not renamed.keys() <= self._renamed.keys():
            self._renamed |= renamed
            self._write(self.parent_id, "metric_names.json", json.dumps(self._renamed, indent=2))
        return named

    def _flush(self, number: int) -> None:
        pending, self._pending[number] = self._pending[number], []
        for start in range(0, len(pending), _BATCH):
            self._client.log_batch(self._runs[number], metrics=pending[start : start + _BATCH])

    def finish_trial(self, number: int, result: TrialResult, paths: TrialPaths) -> None:
        """Write the trial's best metrics, its files and its final status."""
        run_id = self._runs[number]
        self._flush(number)
        numbers = {**curves.best_of(result), "seconds": result.seconds, "peak_rss_mb": result.peak_rss_mb,
                   "trainable_parameters": float(result.trainable_parameters),
                   "adapter_mb": result.adapter_mb}  # fmt: skip
        if self._summarized.get(number) == result.seconds:
            numbers = {}
        now = int(time.time() * 1000)
        tags = {"hpo.state": result.state, "hpo.stopped_by": result.stopped_by, "hpo.cause": result.cause or ""}
        self._client.log_batch(
            run_id,
            metrics=[Metric(name, value, now, 0) for name, value in self._named(numbers).items()],
            tags=[RunTag(name, value) for name, value in tags.items() if value],
        )
        files = self._artifacts(run_id)
        for path in (paths.spec, paths.result, self._fetch(paths.log)):
            if path.exists():
                files.log_artifact(str(path))
        if paths.examples.exists():
            files.log_artifacts(str(paths.examples))
        adapter = self._fetch(paths.adapter)
        if adapter.exists() and any(adapter.iterdir()):
            files.log_artifacts(str(adapter), "adapter")
        self._client.set_terminated(run_id, _STATUS[result.state])
        del self._runs[number], self._pending[number]

    def pause_trial(self, number: int) -> None:
        """Close the run of a trial that will be continued."""
        self._flush(number)
        self._client.set_terminated(self._runs.pop(number), "KILLED")
        del self._pending[number]

    # --- the sweep ---------------------------------------------------------------------------------

    def best_so_far(self, finished: int, value: float) -> None:
        """Write the best value so far to the parent run; the x axis is the number of finished trials."""
        name = safe_name(f"best_so_far/{self._config.objective.metric}")
        self._client.log_metric(self.parent_id, name, value, step=finished)

    def artifact(self, name: str, text: str) -> None:
        """Attach a text as a file to the sweep's run."""
        self._write(self.parent_id, name, text)

    def artifacts(self, folder: Path) -> None:
        """Attach a folder's files to the sweep's run."""
        self._artifacts(self.parent_id).log_artifacts(str(folder))

    def _artifacts(self, run_id: str) -> ArtifactRepository:
        """The store of a run's files. The client is not used: it keeps a queue and threads for every run, forever."""
        return get_artifact_repository(self._client.get_run(run_id).info.artifact_uri)

    def _write(self, run_id: str, name: str, text: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_text(text, encoding="utf-8")
            self._artifacts(run_id).log_artifact(str(path))

    def finish_sweep(self, summary: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Write the sweep's final numbers and tags to its run, and close it as FINISHED."""
        now = int(time.time() * 1000)
        self._client.log_batch(
            self.parent_id,
            metrics=[Metric(safe_name(name), value, now, 0) for name, value in summary.items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
        self._client.set_terminated(self.parent_id, "FINISHED")

    def abandon(self, status: str) -> None:
        """Close all open runs with `status` after an interruption or an error, so that no run stays RUNNING."""
        for run_id in [*self._runs.values(), self.parent_id]:
            self._client.set_terminated(run_id, status)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values as MLflow parameters: dotted names, and texts cut at MLflow's limit of 6,000 characters."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        elif value is not None:
            flat[f"{prefix}{key}"] = str(value)[:6000]
    return flat
