"""Which experiment of MLflow has the runs of a sweep: one of its own, or one that several sweeps share."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage

from hpo.paths import Home
from hpo.tracking.mlflow_places import EXPERIMENT, SHARED_TAG, SWEEP_TAG, experiment_of_sweep, shared_experiment_id

# The UI then opens on training runs, not on traces of a language model.
_TRAINING = {"mlflow.experimentKind": "custom_model_development"}


def experiment_for(
    client: MlflowClient, home: Home, sweep: str, shared: str | None, say: Callable[[str], None]
) -> str:  # fmt: skip
    """The id of the experiment of a sweep: the one that has its runs, else the one it `shared`s, else a new one.

    A sweep stays where its runs are, so homes in which all sweeps share an experiment go on as they are.
    """
    if found := experiment_of_sweep(home, sweep):
        return _alive(client, client.get_experiment(found.id), say)
    if shared is None:
        tags = {**_TRAINING, SWEEP_TAG: sweep}
        return str(client.create_experiment(_free_name(client, sweep), home.artifacts.as_uri(), tags=tags))
    return shared_experiment(client, home, shared, say)


def shared_experiment(client: MlflowClient, home: Home, name: str, say: Callable[[str], None]) -> str:
    """The id of an experiment for several sweeps, or for bundles; a missing one is created, a deleted one restored."""
    known = shared_experiment_id(home, name)  # by its tag: its name may be another
    found = client.get_experiment(known) if known else client.get_experiment_by_name(name)
    # Files of another experiment, say of MLflow's own `Default`, would lie outside the home.
    if found is not None and found.artifact_location == home.artifacts.as_uri():
        return _alive(client, found, say)
    tags = {**_TRAINING, SHARED_TAG: name}
    return str(client.create_experiment(_free_name(client, name), home.artifacts.as_uri(), tags=tags))


def bundle_experiment(client: MlflowClient, home: Home, say: Callable[[str], None]) -> str:
    """The id of the experiment that has the runs of all bundles."""
    return shared_experiment(client, home, EXPERIMENT, say)


def _alive(client: MlflowClient, found: Experiment, say: Callable[[str], None]) -> str:
    """The experiment's id, after restoring a deleted one."""
    if found.lifecycle_stage == LifecycleStage.DELETED:
        client.restore_experiment(found.experiment_id)
        say(f"the experiment {found.name!r} was deleted in MLflow: it is restored with all its runs")
    return str(found.experiment_id)


def _free_name(client: MlflowClient, name: str) -> str:
    """A name that no experiment has, deleted ones included: MLflow refuses a second one."""
    names = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
    return next(free for free in names if client.get_experiment_by_name(free) is None)
