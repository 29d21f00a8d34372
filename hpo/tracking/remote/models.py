"""Copies of logged models on a tracking server, and which runs have read or made them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from mlflow.entities import LoggedModel, LoggedModelInput, LoggedModelOutput, LoggedModelStatus, Metric, Run

from hpo.tracking.remote.ledger import Entry, Ledger
from hpo.tracking.remote.source import VERSIONS, RunSource
from hpo.tracking.remote.store import RemoteStore
from hpo.tracking.remote.text import Names


class ModelCopies:
    """The copies of the models that one sweep's runs have logged. Registered models stay in the home."""

    def __init__(self, store: RemoteStore, source: RunSource, ledger: Ledger, names: Names) -> None:
        self._store = store
        self._source = source
        self._ledger = ledger
        self._names = names

    def update(self, run: Run, copy_of_run: str, experiment_id: str) -> None:
        """Send what the server lacks of the models that a run has logged. Raises `RemoteProblem`."""
        entries = None
        for model_id in self._source.models(run.info.run_id):
            entries = self._ledger.entries() if entries is None else entries
            model = self._source.client.get_logged_model(model_id)
            version = f"{model.status} {model.last_updated_timestamp}"
            entry = entries.get(model_id)
            if entry and entry.records == version:
                continue
            remote = entry.remote if entry else self._found_or_made(model, copy_of_run, experiment_id)
            self._names.ids[model_id] = remote
            self._ledger.put(model_id, Entry(remote))
            self._store.tag_model(remote, self._tags(model))
            if LoggedModelStatus.is_finalized(model.status):
                self._store.finalize_model(remote, model.status)
            self._ledger.put(model_id, Entry(remote, version))

    def link(self, run: Run, copy_of_run: str, linked: Collection[str]) -> set[str]:
        """Write which models a run has read and made, besides the `linked` ones; returns the ids that are new."""
        inputs = list(self._unlinked(run.inputs.model_inputs if run.inputs else [], linked))
        outputs = list(self._unlinked(run.outputs.model_outputs if run.outputs else [], linked))
        if inputs:
            self._store.log_inputs(copy_of_run, [], [LoggedModelInput(remote) for remote, _ in inputs])
        if outputs:
            self._store.log_outputs(copy_of_run, [LoggedModelOutput(remote, made.step) for remote, made in outputs])
        return {remote for remote, _ in (*inputs, *outputs)}

    def renamed(self, metric: Metric) -> Metric:
        """A value as one of the copy of its model, where it has one."""
        model_id = self._names.ids.get(metric.model_id or "")
        data = (metric.dataset_name, metric.dataset_digest) if model_id else (None, None)
        return Metric(metric.key, metric.value, metric.timestamp, metric.step, model_id, *data)

    def places(self, run_id: str) -> Iterator[tuple[str, str, str]]:
        """Each logged model of a run with a copy: its id, where its files are here, and where they belong there."""
        for model_id in self._source.models(run_id):
            if remote := self._names.ids.get(model_id):
                here = self._source.client.get_logged_model(model_id).artifact_location
                yield model_id, here, self._store.read_model(remote).artifact_location

    def _found_or_made(self, model: LoggedModel, copy_of_run: str, experiment_id: str) -> str:
        if found := self._store.model_copies(experiment_id, model.model_id):
            return str(found[0].model_id)
        return str(self._store.create_model(experiment_id, model, copy_of_run, self._tags(model)).model_id)

    def _tags(self, model: LoggedModel) -> dict[str, str]:
        said = {name: self._names.translated(value) for name, value in model.tags.items() if name != VERSIONS}
        return {name: value for name, value in said.items() if value is not None}

    def _unlinked(self, models: Collection[Any], linked: Collection[str]) -> Iterator[tuple[str, Any]]:
        """The copies of those models that have one and are not linked yet."""
        for model in models:
            remote = self._names.ids.get(model.model_id)
            if remote and remote not in linked:
                yield remote, model
