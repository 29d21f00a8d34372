"""What MLflow is told, in its own store."""

from __future__ import annotations

import pytest

from hpo.home import Home
from hpo.records import TrialRecord
from hpo.tracking import Tracker
from tests.hpo.builders import INSPECTION, evaluation, make_config, trial_result
from trainers.spec import Step


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A home whose MLflow database is made once, a config, and the spec of its trial 0."""
    folder = tmp_path_factory.mktemp("store")
    home, config = Home(folder / "home"), make_config(folder)
    home.dir.mkdir()
    paths = home.sweep(config.name).trial(0)
    return home, config, config.trial_spec(0, {}, home, INSPECTION, paths, threads=1)


def record(number, **changes):
    return TrialRecord(number, "running", {"learning_rate": 1e-3}, f"identity{number}", **changes)


def begin(tracker, spec, **changes):
    return tracker.start_trial(spec, record(spec.number, **changes), is_baseline=spec.number == 0)


def history(tracker, run_id, name):
    return [(m.step, m.value) for m in tracker._client.get_metric_history(run_id, name)]


def test_every_step_between_two_evaluations_is_kept(store):
    home, config, spec = store
    tracker = Tracker(home, config, INSPECTION)
    run_id = begin(tracker, spec)
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
    assert begin(tracker, other) == orphan
    run = tracker._client.get_run(orphan)
    assert run.data.params["lora_r"] == str(other.settings["lora_r"])
    assert run.inputs.dataset_inputs


def test_labels_that_mlflow_cannot_name_are_written_all_the_same(store):
    import dataclasses

    home, config, _ = store
    spec = config.trial_spec(8, {}, home, INSPECTION, home.sweep(config.name).trial(8), threads=1)
    tracker = Tracker(home, config, INSPECTION)
    run_id = begin(tracker, spec)
    odd = dataclasses.replace(evaluation(0, 1.0, 0.5), metrics={"f1_macro": 0.5, "f1/C++ (don't, no)": 0.25})
    tracker.evaluation(8, odd)
    assert 0.25 in tracker._client.get_run(run_id).data.metrics.values()


def test_a_second_tracker_takes_up_the_same_sweep_s_run(store):
    home, config, _ = store
    assert Tracker(home, config, INSPECTION).parent_id == Tracker(home, config, INSPECTION).parent_id


def spec_of(store, number, **changes):
    home, config, _ = store
    return config.trial_spec(number, {}, home, INSPECTION, home.sweep(config.name).trial(number), threads=1, **changes)


def test_a_paused_trial_goes_on_in_its_run_and_repeats_nothing(store):
    home, config, _ = store
    spec = spec_of(store, 20)
    tracker = Tracker(home, config, INSPECTION)
    run_id = begin(tracker, spec)
    tracker.evaluation(20, evaluation(0, 0.5, 0.4))
    tracker.pause_trial(20)
    assert tracker._client.get_run(run_id).info.status == "KILLED"
    again = Tracker(home, config, INSPECTION)
    assert begin(again, spec, run_id=run_id) == run_id
    for index, value in ((0, 0.4), (1, 0.5)):  # a resumed trial tells again what came before
        again.evaluation(20, evaluation(index, (index + 1) / 2, value))
    result = trial_result("complete", 0.5)
    again.finish_trial(20, result, home.sweep(config.name).trial(20))
    assert [value for _, value in history(again, run_id, "validation/f1_macro")] == [0.4, 0.5]
    assert again._client.get_run(run_id).info.status == "FINISHED"


def test_a_trial_finished_twice_has_its_numbers_once(store):
    """A kill between the end of its run and the study's word for it: the next session ends it again."""
    home, config, _ = store
    spec, paths = spec_of(store, 21), home.sweep(config.name).trial(21)
    for _ in range(2):
        tracker = Tracker(home, config, INSPECTION)
        run_id = begin(tracker, spec)
        tracker.finish_trial(21, trial_result("complete", 0.5), paths)
    assert history(tracker, run_id, "best/f1_macro") == [(0, 0.5)]


def test_a_duplicate_has_a_run_of_its_own_that_names_its_twin(store):
    home, config, _ = store
    tracker = Tracker(home, config, INSPECTION)
    twin, duplicate = begin(tracker, spec_of(store, 22)), begin(tracker, spec_of(store, 23), reused_from="22")
    assert twin != duplicate
    assert tracker._client.get_run(duplicate).data.tags["hpo.reused_from"] == "22"


def test_repeats_of_a_finalist_are_runs_beside_the_trials(store):
    home, config, _ = store
    tracker = Tracker(home, config, INSPECTION)
    runs = [tracker.start_repeat(spec_of(store, 1_000_000 + i, seed=5 + i), trial=3, repeat=i) for i in range(2)]
    assert len(set(runs)) == 2
    tags = tracker._client.get_run(runs[1]).data.tags
    assert (tags["hpo.kind"], tags["hpo.repeats"], "hpo.trial" in tags) == ("repeat", "3", False)
    assert Tracker(home, config, INSPECTION).start_repeat(spec_of(store, 1_000_001, seed=6), 3, 1) == runs[1]
