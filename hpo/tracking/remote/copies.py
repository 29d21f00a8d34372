"""Copies of runs on a tracking server, each brought up to date by what it lacks: so nothing is there twice.

What a copy has is read from the server once, and then known: until a request fails, of which nobody knows whether it
was carried out. Then it is read again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from mlflow.entities import LifecycleStage, Metric, Param, Run, RunTag

from hpo.tracking.remote.ledger import Entry, Ledger
from hpo.tracking.remote.models import ModelCopies
from hpo.tracking.remote.problems import Missing, Refused, RemoteProblem, Unavailable
from hpo.tracking.remote.source import PARENT, RunSource
from hpo.tracking.remote.store import Point, RemoteStore, point_of
from hpo.tracking.remote.text import Names

_ENDED = ("FINISHED", "FAILED", "KILLED")
_CHANGED = "hpo.changed_params"
"""Tag of a copy: parameters that have other values now, or none (null), as JSON. A server lets nobody change one."""


class Lost(Exception):
    """The server no longer has a run that it had: it was deleted for good, or this is another server now."""


@dataclass
class Copy:
    """What a server has of one run, as far as this process knows."""

    run_id: str
    experiment_id: str
    artifact_uri: str
    state: tuple[str, str, int | None]
    """Name, status and end."""
    tags: dict[str, str]
    params: dict[str, str]
    datasets: set[tuple[str, str]]
    models: set[str]
    """Models that the run has read or made."""
    unread: set[str]
    """Metrics with values that this process has neither sent nor read."""
    steps_ahead: dict[str, set[int]] = field(default_factory=dict)
    """Metric -> all steps that the copy had, where it had values that the home has not."""
    row: int = 0
    """The last row of the home's values that is there."""

    @classmethod
    def of(cls, run: Run) -> Copy:
        """As the server describes it."""
        info, inputs, outputs = run.info, run.inputs, run.outputs
        datasets = {(found.dataset.name, found.dataset.digest) for found in inputs.dataset_inputs} if inputs else set()
        models = [*(inputs.model_inputs if inputs else []), *(outputs.model_outputs if outputs else [])]
        return cls(
            info.run_id, info.experiment_id, info.artifact_uri, (info.run_name, info.status, info.end_time or None),
            dict(run.data.tags), dict(run.data.params), datasets, {model.model_id for model in models},
            set(run.data.metrics),
        )  # fmt: skip

    def is_repeated(self, metric: Metric) -> bool:
        """Whether it is a step of a curve that the copy had before; what has no curve is a number that may change."""
        return metric.step > 0 and metric.step in self.steps_ahead.get(metric.key, ())


class RunCopies:
    """The copies of one sweep's runs."""

    def __init__(self, store: RemoteStore, source: RunSource, ledger: Ledger) -> None:
        self._store = store
        self._source = source
        self._ledger = ledger
        self._copies: dict[str, Copy] = {}
        self._experiment_tags: dict[str, dict[str, str]] = {}
        self._deleted: set[str] = set()
        """Experiments here that somebody has deleted there: they come back where a run is added."""
        self.names = Names({local: entry.remote for local, entry in ledger.entries().items()})
        self.models = ModelCopies(store, source, ledger, self.names)

    def update(self, run_id: str) -> bool:
        """Send what the copy of a run lacks; False where a text of it names a run that has no copy yet.

        Raises `RemoteProblem`, and `Lost`.
        """
        was_known = run_id in self._copies
        try:
            return self._updated(run_id)
        except Refused:
            self._copies.pop(run_id, None)
            if not was_known:
                raise
        except RemoteProblem:
            self._copies.pop(run_id, None)
            raise
        return self._updated(run_id)  # what was known may be wrong: somebody deleted the run, say

    def place(self, run_id: str) -> str:
        """The artifact URI of the copy of a run, which is read where it is not known.

        Raises `RemoteProblem`, and `Lost`.
        """
        return self._copy(self._source.client.get_run(run_id)).artifact_uri

    def check(self, run_id: str) -> None:
        """Note in which experiment a copy is; a deleted one stays so.

        Raises `RemoteProblem`, and `Lost` where the server does not have it any more.
        """
        local, there = self._source.client.get_run(run_id), self._known(run_id)
        self.names.experiments.setdefault(local.info.experiment_id, there.info.experiment_id)

    def release(self, run_id: str) -> None:
        """Forget what is known of a copy that is complete; it is read again where its run changes."""
        self._copies.pop(run_id, None)

    def update_experiments(self) -> None:
        """Send the tags that experiments do not have there."""
        for local in list(self.names.experiments):
            remote = self._experiment(local)
            if local in self._deleted:
                continue
            there = self._experiment_tags[local]
            for name, value in self._source.client.get_experiment(local).tags.items():
                said = self.names.translated(value)
                if said is not None and there.get(name) != said:
                    self._store.tag_experiment(remote, name, said)
                    there[name] = said

    def _updated(self, run_id: str) -> bool:
        run = self._source.client.get_run(run_id)
        copy = self._copy(run)
        refused = self._update_models(run, copy)
        metrics, row = self._source.metrics(run_id, copy.row)
        tags, is_whole = self._tags(run)
        changed = self._changed(run, copy)
        if changed or _CHANGED in copy.tags:
            tags[_CHANGED] = json.dumps(changed)
        new_tags = [RunTag(name, value) for name, value in tags.items() if copy.tags.get(name) != value]
        params = [Param(name, value) for name, value in run.data.params.items() if name not in copy.params]
        self._store.log(copy.run_id, self._unsent(copy, metrics), params, new_tags)
        copy.row, copy.params = row, {**run.data.params, **copy.params}
        copy.tags |= tags
        self._update_inputs(run, copy)
        self._update_state(run, copy)
        if refused:
            raise refused
        return is_whole

    # --- parts of a run ----------------------------------------------------------------------------

    def _copy(self, run: Run) -> Copy:
        """The run's copy: the one that is known, or found, or made now."""
        local = run.info.run_id
        if local in self._copies:
            return self._copies[local]
        there = self._known(local) if local in self.names.ids else self._found_or_made(run)
        if there.info.lifecycle_stage == LifecycleStage.DELETED:
            self._store.revive(there)
            self._deleted.discard(run.info.experiment_id)
        if local not in self.names.ids:
            self._ledger.put(local, Entry(there.info.run_id))
            self.names.ids[local] = there.info.run_id
        self.names.experiments.setdefault(run.info.experiment_id, there.info.experiment_id)
        self._copies[local] = Copy.of(there)
        return self._copies[local]

    def _known(self, local: str) -> Run:
        """The copy of a run that has one."""
        try:
            return self._store.read(self.names.ids[local])
        except Missing:
            raise Lost from None

    def _found_or_made(self, run: Run) -> Run:
        experiment = self._experiment(run.info.experiment_id)
        if found := self._store.copies(experiment, run.info.run_id):
            return self._store.read(found[0].info.run_id)
        tags, _ = self._tags(run)
        if PARENT in run.data.tags and PARENT not in tags and run.data.tags[PARENT] in self.names.local:
            raise Refused("has not taken its parent run")
        if run.info.experiment_id in self._deleted:
            self._store.revive_experiment(experiment)
            self._deleted.discard(run.info.experiment_id)
        return self._store.create(experiment, run, tags)

    def _experiment(self, local: str) -> str:
        """The id of the experiment for the copies: the one that has some, whatever its name, or else that of this name.

        Raises `Unavailable` where the server refuses it: no run could be there.
        """
        if local not in self._experiment_tags:
            name = self._source.client.get_experiment(local).name
            try:
                there = self._store.experiment(name, self.names.experiments.get(local))
            except Refused as refused:
                raise Unavailable(str(refused)) from refused
            self.names.experiments[local] = str(there.experiment_id)
            self._experiment_tags[local] = dict(there.tags)
            if there.lifecycle_stage == LifecycleStage.DELETED:
                self._deleted.add(local)
        return self.names.experiments[local]

    def _tags(self, run: Run) -> tuple[dict[str, str], bool]:
        """The tags of the copy, without those that name a run without a copy, and whether these are all."""
        said = {name: self.names.translated(value) for name, value in run.data.tags.items()}
        if run.data.tags.get(PARENT) not in self.names.local:
            said.pop(PARENT, None)  # its parent was deleted here
        return {name: value for name, value in said.items() if value is not None}, None not in said.values()

    def _changed(self, run: Run, copy: Copy) -> dict[str, str | None]:
        """Parameters that the copy has and that are others now: None where the run has lost one."""
        now = run.data.params
        return {name: now.get(name) for name, value in copy.params.items() if now.get(name) != value}

    def _unsent(self, copy: Copy, metrics: Sequence[Metric]) -> list[Metric]:
        """Those of the home's values that the server does not have.

        The copy may be ahead of a home that has come back from a backup: its trials then repeat steps, at other times.
        """
        there: dict[str, set[Point]] = {}
        here = {(m.key, m.timestamp, m.step) for m in metrics}
        for name in copy.unread & {m.key for m in metrics}:
            there[name] = self._store.history(copy.run_id, name)
            if any((name, time, step) not in here for time, step, _ in there[name]):
                copy.steps_ahead[name] = {step for _, step, _ in there[name]}
        copy.unread -= set(there)
        return [self.models.renamed(m) for m in metrics
                if point_of(m) not in there.get(m.key, ()) and not copy.is_repeated(m)]  # fmt: skip

    def _update_models(self, run: Run, copy: Copy) -> Refused | None:
        """Send the models that the run has logged; a server that refuses them still takes everything else."""
        try:
            self.models.update(run, copy.run_id, copy.experiment_id)
        except Refused as refused:
            return refused
        return None

    def _update_inputs(self, run: Run, copy: Copy) -> None:
        inputs = run.inputs.dataset_inputs if run.inputs else []
        new = [found for found in inputs if (found.dataset.name, found.dataset.digest) not in copy.datasets]
        if new:
            self._store.log_inputs(copy.run_id, new, [])
            copy.datasets |= {(found.dataset.name, found.dataset.digest) for found in new}
        copy.models |= self.models.link(run, copy.run_id, copy.models)

    def _update_state(self, run: Run, copy: Copy) -> None:
        state = (run.info.run_name, run.info.status, run.info.end_time or None)
        if state[1] in _ENDED:
            for extra in self._store.copies(copy.experiment_id, run.info.run_id):
                # A request to create it that seemed lost was carried out after all.
                if extra.info.run_id != copy.run_id and extra.info.lifecycle_stage != LifecycleStage.DELETED:
                    self._store.delete(extra.info.run_id)
        if state != copy.state:
            self._store.set_state(copy.run_id, *state)
            copy.state = state
