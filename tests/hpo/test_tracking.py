"""What MLflow is told, in its own store."""

from __future__ import annotations

import pytest

from hpo.home import Home
from hpo.tracking import Tracker
from tests.hpo.builders import INSPECTION, evaluation, make_config
from trainers.spec import Step


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A home whose MLflow database is made once, a config, and the spec of its trial 0."""
    folder = tmp_path_factory.mktemp("store")
    home, config = Home(folder / "home"), make_config(folder)
    home.dir.mkdir()
    paths = home.sweep(config.name).trial(0)
    return home, config, config.trial_spec(0, {}, home, INSPECTION, paths, threads=1)


def history(tracker, run_id, name):
    return [(m.step, m.value) for m in tracker._client.get_metric_history(run_id, name)]


def test_every_step_between_two_evaluations_is_kept(store):
    home, config, spec = store
    tracker = Tracker(home, config, INSPECTION)
    run_id = tracker.start_trial(spec, {}, None)
    for step in range(1, 702):  # two metrics each: more than MLflow takes at once
        tracker.step(0, Step(step, step, 1.0 / step, 1e-3, 0.0))
    tracker.evaluation(0, evaluation(0, 1.0, 0.5))
    assert len(history(tracker, run_id, "train/loss")) == 701
    assert [value for _, value in history(tracker, run_id, "validation/f1_macro")] == [0.5]


def test_a_run_made_before_its_id_was_known_is_adopted_and_completed(store):
    """A kill between creating the run and describing it: the next start takes it up and fills in what it lacks."""
    home, config, _ = store
    other = config.trial_spec(7, {}, home, INSPECTION, home.sweep(config.name).trial(7), threads=1)
    tracker = Tracker(home, config, INSPECTION)
    tags = {"hpo.sweep": config.name, "hpo.kind": "trial", "hpo.trial": "7", "hpo.spec": other.fingerprint()}
    orphan = tracker._create("orphan", tags)
    assert tracker.start_trial(other, {}, None) == orphan
    run = tracker._client.get_run(orphan)
    assert run.data.params["lora_r"] == str(other.settings["lora_r"])
    assert run.inputs.dataset_inputs


def test_labels_that_mlflow_cannot_name_are_written_all_the_same(store):
    import dataclasses

    home, config, _ = store
    spec = config.trial_spec(8, {}, home, INSPECTION, home.sweep(config.name).trial(8), threads=1)
    tracker = Tracker(home, config, INSPECTION)
    run_id = tracker.start_trial(spec, {}, None)
    odd = dataclasses.replace(evaluation(0, 1.0, 0.5), metrics={"f1_macro": 0.5, "f1/C++ (don't, no)": 0.25})
    tracker.evaluation(8, odd)
    assert 0.25 in tracker._client.get_run(run_id).data.metrics.values()


def test_a_second_tracker_takes_up_the_same_sweep_s_run(store):
    home, config, _ = store
    assert Tracker(home, config, INSPECTION).parent_id == Tracker(home, config, INSPECTION).parent_id
