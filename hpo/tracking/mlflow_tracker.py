"""Writes a sweep to MLflow: one parent run per sweep and one child run per trial, always by explicit run id.

MLflow is a view of the study, from which everything here can be written again. The x axis of every curve is training
examples seen, so that trials with different batch sizes line up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from hpo.config.sweep_config import SweepConfig
from hpo.executors.base import Fetch, here
from hpo.paths import Home
from hpo.results.records import TrialRecord
from hpo.tracking import curves
from hpo.tracking.metric_names import safe_name
from hpo.tracking.mlflow_data import dataset_inputs
from hpo.tracking.mlflow_experiments import experiment_for
from hpo.tracking.mlflow_files import files_of
from hpo.tracking.mlflow_parent import ParentRun
from hpo.tracking.mlflow_runs import SweepRuns
from hpo.tracking.mlflow_store import client
from hpo.tracking.system_metrics import system_metrics
from hpo.tracking.trial_settings import parameters, repeat_name, trial_name
from hpo.tracking.writer import Writer
from trainers.protocol.events import Evaluation, PreparedData, Step, TrialResult
from trainers.protocol.files import TrialPaths
from trainers.protocol.settings import Setting
from trainers.protocol.trial_spec import TrialSpec

if TYPE_CHECKING:
    from hpo.report.facts import ReportFacts

TRACKING_ERRORS = (MlflowException, SQLAlchemyError)
"""The errors of MLflow and SQLAlchemy when the database cannot be written."""
_STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
"""A pruned trial ended as it should, and `hpo.state` says how; KILLED is one that was interrupted."""


class Tracker:
    """Writes the runs of one sweep."""

    def __init__(
        self, home: Home, config: SweepConfig, inspection: PreparedData,
        say: Callable[[str], None] = lambda text: None, fetch: Fetch = here, origin: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """`say` gets a message about everything that was deleted in MLflow and is written again.

        `fetch` is that of the sweep's executor; `origin` are tags of every run that say where the sweep runs.
        """
        self._client = client(home)
        self._config = config
        self._fetch = fetch
        self._inspection = inspection
        self._origin = origin or {}
        experiment_id = experiment_for(self._client, home, config.name, config.experiment, say)
        self._all_runs = SweepRuns(self._client, experiment_id, config.name, say)
        self._writer = Writer()
        self._runs: dict[int, str] = {}
        self._pending: dict[int, list[Metric]] = {}
        self._logged_up_to: dict[int, int] = {}
        """Trial -> examples at the last evaluation that its run has."""
        self._steps_up_to: dict[int, int] = {}
        """Trial -> examples at the last step that its run had before: where a trial pauses, steps are written after its
        last evaluation, and where its process was gone, it repeats them."""
        self._summarized: dict[int, float] = {}
        """Trial -> its seconds, where its run has final numbers: a session was killed right after writing them, or the
        trial was stopped and goes on."""
        self._parent = ParentRun(self._client, home, config, self._all_runs, self._origin)
        self._all_runs.end_left_open(self.parent_id)
        self._parent.describe(inspection)

    @property
    def parent_id(self) -> str:
        """The id of the sweep's own run."""
        return self._parent.id

    def settle(self) -> None:
        """Wait until all that was given is written. Raises what the first write raised that failed."""
        self._writer.settle()

    def gone(self, run_ids: Collection[str]) -> set[str]:
        """The ids of this sweep's runs that are permanently deleted; deleted runs that still exist are restored."""
        return self._all_runs.gone(run_ids)

    # --- trials ------------------------------------------------------------------------------------

    def start_trial(self, spec: TrialSpec, record: TrialRecord, *, is_baseline: bool) -> str:
        """Create a trial's run, or continue the run that it had before an interruption; return the run's id."""
        self.settle()
        run_id = self._all_runs.living(record.run_id) or self._all_runs.find(
            kind="trial", spec=spec.fingerprint(), trial=str(spec.number)
        )
        if run_id:
            self._adopt(run_id, spec)
        else:
            name = trial_name(spec.number, self._config.planned_trials(), record.params, is_baseline=is_baseline)
            tags = {"hpo.trial": str(spec.number), "hpo.baseline": str(is_baseline).lower(),
                    "hpo.revision": str(record.revision)}  # fmt: skip
            if record.reused_from is not None:
                tags["hpo.reused_from"] = record.reused_from
            run_id = self._create("trial", name, spec, tags)
        self._take(spec, record.params, run_id)
        return run_id

    def start_repeat(self, spec: TrialSpec, trial: int, repeat: int) -> str:
        """Create or continue the run of one repeat of a finalist, and return the run's id.

        `spec.number` identifies the repeat only while it runs; `trial` and `repeat` identify it afterwards.
        """
        self.settle()
        run_id = self._all_runs.find(kind="repeat", spec=spec.fingerprint())
        if run_id:
            self._adopt(run_id, spec)
        else:
            name = repeat_name(trial, self._config.planned_trials(), repeat)
            run_id = self._create("repeat", name, spec, {"hpo.repeats": str(trial)})
        settings = {**spec.settings, "method": spec.method}
        searched = {n: v for n, v in settings.items() if n in self._config.space.dimensions}
        self._take(spec, {**searched, "seed": spec.seed}, run_id)
        return run_id

    def _create(self, kind: str, name: str, spec: TrialSpec, tags: Mapping[str, str]) -> str:
        common = {
            "mlflow.parentRunId": self.parent_id, "hpo.sweep": self._config.name, "hpo.kind": kind,
            "hpo.spec": spec.fingerprint(), "hpo.settings": json.dumps(curves.settings_of(spec)),
        }  # fmt: skip
        return self._all_runs.create(name, {**self._origin, **common, **tags})

    def _adopt(self, run_id: str, spec: TrialSpec) -> None:
        """Continue a run of an earlier session, and note what it has: MLflow would store repeated values twice."""
        self._client.update_run(run_id, status="RUNNING")
        self._logged_up_to[spec.number] = self._last_step(run_id, f"validation/{spec.metric}")
        self._steps_up_to[spec.number] = self._last_step(run_id, "train/loss")
        if (seconds := self._client.get_run(run_id).data.metrics.get("seconds")) is not None:
            self._summarized[spec.number] = seconds

    def _take(self, spec: TrialSpec, point: Mapping[str, Setting], run_id: str) -> None:
        """Write a run's parameters and data sets, unless it has them: parameters cannot be changed."""
        run = self._client.get_run(run_id)
        if not run.inputs.dataset_inputs:
            self._client.log_inputs(run_id, dataset_inputs(self._config.data, self._inspection))
        if not run.data.params:
            given = {name: value for name, value in parameters(self._config, point).items() if value is not None}
            self._client.log_batch(run_id, params=[Param(safe_name(n), str(v)) for n, v in given.items()])
        self._runs[spec.number] = run_id
        self._pending[spec.number] = []

    def _last_step(self, run_id: str, metric: str) -> int:
        history = self._client.get_metric_history(run_id, safe_name(metric))
        return max((m.step for m in history), default=-1)

    def step(self, number: int, step: Step) -> None:
        """Keep a step's metrics until the next evaluation: they are written in batches."""
        if step.loss is None or step.examples <= self._steps_up_to.get(number, -1):
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
        named = self._parent.named(values)
        self._pending[number] += [Metric(name, value, now, examples) for name, value in named.items()]

    def _flush(self, number: int) -> None:
        """Have the pending metrics written: a trial waits for the verdict on its evaluation, and not for MLflow."""
        pending, self._pending[number] = self._pending[number], []
        self._writer.soon(partial(self._client.log_batch, self._runs[number], pending))

    def finish_trial(self, number: int, result: TrialResult, paths: TrialPaths) -> None:
        """Write the trial's best metrics, what it used of the machine, its files and its final status."""
        run_id = self._runs[number]
        self._flush(number)
        self.settle()
        numbers = {**curves.best_of(result), "seconds": result.seconds, "peak_rss_mb": result.peak_rss_mb,
                   "trainable_parameters": float(result.trainable_parameters),
                   "adapter_mb": result.adapter_mb}  # fmt: skip
        now = int(time.time() * 1000)
        if self._summarized.get(number) != result.seconds:
            metrics = [Metric(name, value, now, 0) for name, value in self._parent.named(numbers).items()]
            self._client.log_batch(run_id, [*metrics, *system_metrics(self._fetch(paths.usage))])
        tags = {"hpo.state": result.state, "hpo.stopped_by": result.stopped_by, "hpo.cause": result.cause or ""}
        self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items() if value])
        files = files_of(self._client, run_id)
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
        self.settle()
        self._client.set_terminated(self._runs.pop(number), "KILLED")
        del self._pending[number]

    # --- the sweep ---------------------------------------------------------------------------------

    def best_so_far(self, finished: int, value: float) -> None:
        """Write the best value after `finished` trials to the parent run."""
        self.settle()
        self._parent.best_so_far(finished, value)

    def artifact(self, name: str, text: str) -> None:
        """Attach a text as a file to the sweep's run."""
        self._parent.put(name, text)

    def artifacts(self, folder: Path) -> None:
        """Attach a folder's files to the sweep's run."""
        self._parent.put_folder(folder)

    def finish_sweep(self, facts: ReportFacts) -> None:
        """Write the champion and all that the report says to the sweep's run, and close it."""
        self.settle()
        self._parent.finish(facts)

    def abandon(self, status: str) -> None:
        """Close all open runs with `status` after an interruption or an error, so that no run stays RUNNING."""
        with ExitStack() as ends:  # of each, whatever another raises: a person may have deleted one
            for run_id in [self.parent_id, *self._runs.values()]:
                ends.callback(self._client.set_terminated, run_id, status)
            self.settle()
