"""What MLflow is told, in its own store."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from hpo.config.trial_specs import TrialSpecs
from hpo.paths import Home
from hpo.results.importance import Importance
from hpo.results.outcome import Against, FinalistsOutcome
from hpo.results.records import TrialRecord
from hpo.tracking.mlflow_deletion import delete_for_good
from hpo.tracking.mlflow_runs import SweepRuns
from hpo.tracking.mlflow_store import client
from hpo.tracking.mlflow_tracker import Tracker
from tests.hpo.builders import INSPECTION, Killed, evaluation, make_config, trial_record, trial_result
from tests.hpo.report.test_page import facts_of
from trainers.protocol.codec import fingerprint
from trainers.protocol.events import Step

MAKE_STORE = """
import sys
from pathlib import Path
from hpo.paths import Home
from hpo.tracking.mlflow_store import client
client(Home(Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory, mlflow_database):
    """A home with an MLflow database, a config, and the spec of its trial 0."""
    folder = tmp_path_factory.mktemp("store")
    home, config = Home(folder / "home"), make_config(folder)
    home.dir.mkdir()
    shutil.copy(mlflow_database, home.dir)
    paths = home.sweep(config.name).trial(0)
    return home, config, TrialSpecs(config, home, INSPECTION).spec(0, {}, paths)


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
    tracker.settle()
    assert len(history(tracker, run_id, "train/loss")) == 701
    assert [value for _, value in history(tracker, run_id, "validation/f1_macro")] == [0.5]


def test_a_run_made_before_its_id_was_known_is_adopted_and_completed(store):
    """A kill between creating the run and describing it: the next start takes it up and fills in what it lacks."""
    home, config, _ = store
    other = TrialSpecs(config, home, INSPECTION).spec(7, {}, home.sweep(config.name).trial(7))
    tracker = Tracker(home, config, INSPECTION)
    tags = {"hpo.sweep": config.name, "hpo.kind": "trial", "hpo.trial": "7", "hpo.spec": other.fingerprint()}
    orphan = tracker._all_runs.create("orphan", tags)
    assert begin(tracker, other) == orphan
    run = tracker._client.get_run(orphan)
    assert run.data.params == {"learning_rate": "0.001"}  # what was searched; the rest is at its default
    assert run.inputs.dataset_inputs


@pytest.mark.parametrize(
    ("train", "kind", "source"),
    [
        ("train.jsonl", "local", {"uri": "train.jsonl"}),
        ("*.jsonl", "local", {"uri": "*.jsonl"}),
        ({"source": "train.jsonl", "split": "train[:9]"}, "local", {"uri": "train.jsonl", "split": "train[:9]"}),
        ({"source": "org/data", "config": "en", "revision": "v2"}, "hub",
         {"uri": "org/data", "config": "en", "revision": "v2"}),
    ],
)  # fmt: skip
def test_a_run_names_the_source_of_its_rows(store, tmp_path, train, kind, source):
    found = fingerprint(source)
    inspection = dataclasses.replace(INSPECTION, fingerprint=found)  # MLflow knows data by name and digest
    tracker = Tracker(store[0], make_config(tmp_path, name=f"of-{found[:12]}", data={"train": train}), inspection)
    (given,) = tracker._client.get_run(tracker.parent_id).inputs.dataset_inputs
    assert given.dataset.source_type == kind
    told = json.loads(given.dataset.source)
    assert {**told, "uri": told["uri"].removeprefix(f"{tmp_path}/")} == source
    assert given.dataset.name == source["uri"].split("/")[-1]


def test_labels_that_mlflow_cannot_name_are_written_all_the_same(store):
    home, config, _ = store
    spec = TrialSpecs(config, home, INSPECTION).spec(8, {}, home.sweep(config.name).trial(8))
    tracker = Tracker(home, config, INSPECTION)
    run_id = begin(tracker, spec)
    odd = dataclasses.replace(evaluation(0, 1.0, 0.5), metrics={"f1_macro": 0.5, "f1/C++ (don't, no)": 0.25})
    tracker.evaluation(8, odd)
    tracker.settle()
    assert 0.25 in tracker._client.get_run(run_id).data.metrics.values()


def test_a_second_tracker_takes_up_the_same_sweep_s_run(store):
    home, config, _ = store
    assert Tracker(home, config, INSPECTION).parent_id == Tracker(home, config, INSPECTION).parent_id


def spec_of(store, number, **changes):
    home, config, _ = store
    return TrialSpecs(config, home, INSPECTION).spec(number, {}, home.sweep(config.name).trial(number), **changes)


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


def test_steps_since_the_last_evaluation_are_there_once_when_a_trial_goes_on_from_it(store):
    """Its process was gone when it paused, so there is no checkpoint of the steps that are written."""
    spec, tracker = spec_of(store, 24), Tracker(*store[:2], INSPECTION)
    run_id = begin(tracker, spec)

    def goes_on(tracker, *steps):
        for examples in steps:
            tracker.step(24, Step(examples, examples, 0.5, 1e-3, 0.0))

    tracker.evaluation(24, dataclasses.replace(evaluation(0, 0.5, 0.4), examples=10))
    goes_on(tracker, 15, 20)
    tracker.pause_trial(24)
    again = Tracker(*store[:2], INSPECTION)
    begin(again, spec, run_id=run_id)
    goes_on(again, 13, 18, 23)
    again.evaluation(24, dataclasses.replace(evaluation(1, 1.0, 0.5), examples=25))
    again.settle()
    assert [step for step, _ in history(again, run_id, "train/loss")] == [15, 20, 23]
    assert history(again, run_id, "validation/f1_macro") == [(10, 0.4), (25, 0.5)]


def test_a_trial_finished_twice_has_its_numbers_once(store):
    """A kill between the end of its run and the study's word for it: the next session ends it again."""
    home, config, _ = store
    spec, paths = spec_of(store, 21), home.sweep(config.name).trial(21)
    for _ in range(2):
        tracker = Tracker(home, config, INSPECTION)
        run_id = begin(tracker, spec)
        tracker.finish_trial(21, trial_result("complete", 0.5), paths)
    assert history(tracker, run_id, "best/f1_macro") == [(0, 0.5)]


def test_a_stopped_trial_that_goes_on_has_one_run_with_its_last_result(store):
    home, config, _ = store
    spec, paths = spec_of(store, 22), home.sweep(config.name).trial(22)
    tracker = Tracker(home, config, INSPECTION)
    run_id = begin(tracker, spec)
    tracker.evaluation(22, evaluation(0, 0.5, 0.4))
    tracker.finish_trial(22, trial_result("pruned", 0.4, seconds=2.0), paths)
    assert begin(tracker, spec, run_id=run_id) == run_id
    for index, value in ((0, 0.4), (1, 0.5)):
        tracker.evaluation(22, evaluation(index, (index + 1) / 2, value))
    tracker.finish_trial(22, trial_result("complete", 0.5, seconds=4.0), paths)
    run = tracker._client.get_run(run_id)
    assert (run.info.status, run.data.tags["hpo.state"]) == ("FINISHED", "complete")
    assert (run.data.metrics["best/f1_macro"], run.data.metrics["seconds"]) == (0.5, 4.0)
    assert [value for _, value in history(tracker, run_id, "validation/f1_macro")] == [0.4, 0.5]


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


def test_another_attempt_in_the_same_session_repeats_nothing(store):
    """Of the first attempt an evaluation and two steps after it were told; the second goes on from the evaluation."""
    tracker = Tracker(*store[:2], INSPECTION)
    run_id = begin(tracker, spec_of(store, 30))

    def step(examples):
        tracker.step(30, Step(examples, examples, 1.0 / (1 + examples), 1e-3, 0.0))

    for examples in (5, 10):
        step(examples)
    first = dataclasses.replace(evaluation(0, 0.5, 0.4), examples=10)
    tracker.evaluation(30, first)
    for examples in (15, 20):
        step(examples)
    tracker.evaluation(30, first)  # the trainer tells again what came before its checkpoint
    for examples in (18, 25):  # steps are told twice a second, so not the same ones
        step(examples)
    tracker.evaluation(30, dataclasses.replace(evaluation(1, 1.0, 0.5), examples=25))
    tracker.settle()
    assert [step for step, _ in history(tracker, run_id, "train/loss")] == [5, 10, 18, 25]
    assert history(tracker, run_id, "validation/f1_macro") == [(10, 0.4), (25, 0.5)]


def test_an_attempt_from_the_beginning_repeats_nothing_either(store):
    tracker = Tracker(*store[:2], INSPECTION)
    run_id = begin(tracker, spec_of(store, 31))
    for loss in (0.7, 0.6):
        for examples in (5, 10, 15):
            tracker.step(31, Step(examples, examples, loss, 1e-3, 0.0))
    tracker.evaluation(31, dataclasses.replace(evaluation(0, 1.0, 0.4), examples=15))
    tracker.settle()
    assert history(tracker, run_id, "train/loss") == [(5, 0.6), (10, 0.6), (15, 0.6)]


def test_a_trial_that_was_not_trained_has_its_result_all_the_same(store):
    home, config, _ = store
    tracker = Tracker(home, config, INSPECTION)
    run_id = begin(tracker, spec_of(store, 32), reused_from="other/7")
    result = trial_result("complete", 0.75, seconds=3.0)
    tracker.finish_trial(32, result, home.sweep(config.name).trial(32))
    run = tracker._client.get_run(run_id)
    assert (run.info.status, run.data.metrics["best/f1_macro"], run.data.metrics["seconds"]) == ("FINISHED", 0.75, 3.0)
    assert run.data.tags["hpo.reused_from"] == "other/7"
    assert tracker._client.list_artifacts(run_id) == []


@pytest.mark.parametrize(
    ("number", "result", "status", "cause"),
    [
        (33, trial_result("pruned", 0.5), "FINISHED", None),  # KILLED looks like an accident
        (34, trial_result("failed", None, cause="oom"), "FAILED", "oom"),
    ],
)
def test_how_a_trial_ended_is_its_run_s_status(store, number, result, status, cause):
    home, config, _ = store
    tracker = Tracker(home, config, INSPECTION)
    run_id = begin(tracker, spec_of(store, number), revision=3)
    tracker.finish_trial(number, result, home.sweep(config.name).trial(number))
    run = tracker._client.get_run(run_id)
    assert run.info.status == status
    assert run.data.tags.get("hpo.cause") == cause
    assert (run.data.tags["hpo.state"], run.data.tags["hpo.revision"]) == (result.state, "3")
    assert run.data.tags["mlflow.parentRunId"] == tracker.parent_id


def test_a_run_is_adopted_only_by_the_very_trial_that_it_is_of(store):
    """Numbers and specs both: an edited sweep may give a number's folder to another spec."""
    tracker = Tracker(*store[:2], INSPECTION)
    first = begin(tracker, spec_of(store, 35))
    assert begin(Tracker(*store[:2], INSPECTION), spec_of(store, 35)) == first
    assert begin(tracker, spec_of(store, 36)) != first
    assert begin(tracker, spec_of(store, 35, seed=9)) != first


def test_steps_that_no_evaluation_has_sent_are_kept_when_a_trial_pauses(store):
    tracker = Tracker(*store[:2], INSPECTION)
    run_id = begin(tracker, spec_of(store, 37))
    tracker.step(37, Step(1, 10, 0.5, 1e-3, 0.0))
    tracker.pause_trial(37)
    assert history(tracker, run_id, "train/loss") == [(10, 0.5)]


def test_what_a_trial_gets_wrong_lies_beside_its_result_and_the_champion_s_on_the_sweep(store):
    home, config, _ = store
    tracker, paths = Tracker(home, config, INSPECTION), home.sweep(config.name).trial(40)
    run_id = begin(tracker, spec_of(store, 40))
    paths.examples.mkdir(parents=True)
    (paths.examples / "worst_examples.jsonl").write_text("{}\n")
    tracker.finish_trial(40, trial_result("complete", 0.5), paths)
    tracker.artifacts(paths.examples)
    for run in (run_id, tracker.parent_id):
        assert "worst_examples.jsonl" in [artifact.path for artifact in tracker._client.list_artifacts(run)]


def test_a_write_that_failed_leaves_no_hole_and_closes_the_runs(store, monkeypatch):
    """The next session goes on from the last evaluation that is written: one after a hole would hide it."""
    tracker = Tracker(*store[:2], INSPECTION)
    run_id = begin(tracker, spec_of(store, 46))
    write = tracker._client.log_batch
    broken = iter([OSError("no space left")])

    def failing(*given):
        for error in broken:
            raise error
        write(*given)

    monkeypatch.setattr(tracker._client, "log_batch", failing)
    release = threading.Event()
    tracker._writer.soon(release.wait)
    for index in range(2):
        tracker.evaluation(46, evaluation(index, (index + 1) / 2, 0.4))
    release.set()
    with pytest.raises(OSError, match="no space left"):
        tracker.abandon("FAILED")
    assert history(tracker, run_id, "validation/f1_macro") == []
    assert tracker._client.get_run(run_id).info.status == "FAILED"
    assert parent_of(tracker).info.status == "FAILED"


def test_names_of_labels_are_kept_when_a_sweep_goes_on(store):
    for label in ("f1/C#", "f1/C++"):
        tracker = Tracker(*store[:2], INSPECTION)
        tracker._parent.named({label: 0.5})
    path = tracker._client.download_artifacts(tracker.parent_id, "metric_names.json")
    assert {"f1/C#", "f1/C++"} <= set(json.loads(Path(path).read_text()).values())


def test_no_run_stays_open_when_a_sweep_is_abandoned(store):
    tracker = Tracker(*store[:2], INSPECTION)
    runs = [begin(tracker, spec_of(store, number)) for number in (38, 39)]
    tracker.abandon("KILLED")
    assert {tracker._client.get_run(run).info.status for run in [*runs, tracker.parent_id]} == {"KILLED"}


def test_runs_that_a_kill_left_open_are_ended_by_the_next_session(store):
    """An edit, a spent budget or another race may have no use for them: nobody else would end them."""
    killed = Tracker(*store[:2], INSPECTION)
    runs = [begin(killed, spec_of(store, 47)), killed.start_repeat(spec_of(store, 1_000_047, seed=47), 3, 47)]
    runs.append(begin(killed, spec_of(store, 51)))
    killed._client.delete_run(runs[-1])
    again = Tracker(*store[:2], INSPECTION)
    assert not again.gone(runs)
    assert {again._client.get_run(run).info.status for run in runs} == {"KILLED"}
    assert parent_of(again).info.status == "RUNNING"
    assert begin(again, spec_of(store, 47), run_id=runs[0]) == runs[0]
    assert again._client.get_run(runs[0]).info.status == "RUNNING"


def test_runs_get_a_new_parent_for_one_that_is_gone_also_after_a_kill(store, tmp_path, monkeypatch):
    home, config = store[0], make_config(tmp_path, name="orphans")
    tracker = Tracker(home, config, INSPECTION)
    child = begin(tracker, TrialSpecs(config, home, INSPECTION).spec(0, {}, home.sweep(config.name).trial(0)))
    delete_for_good(home, [tracker.parent_id])

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SweepRuns, "adopt_children", killed)
        with pytest.raises(Killed):
            Tracker(home, config, INSPECTION)
    again = Tracker(home, config, INSPECTION)
    assert again._client.get_run(child).data.tags["mlflow.parentRunId"] == again.parent_id != tracker.parent_id


def test_a_run_that_was_deleted_meanwhile_leaves_no_other_one_open(store):
    tracker = Tracker(*store[:2], INSPECTION)
    deleted, other = (begin(tracker, spec_of(store, number)) for number in (48, 49))
    tracker._client.delete_run(deleted)
    with pytest.raises(MlflowException, match="active"):
        tracker.abandon("FAILED")
    assert tracker._client.get_run(other).info.status == "FAILED"
    assert parent_of(tracker).info.status == "FAILED"


def test_a_kill_while_the_store_is_made_leaves_nothing_in_the_way(tmp_path):
    home = Home(tmp_path / "home")
    making = home.dir / "mlflow.new/mlflow.db"
    process = subprocess.Popen([sys.executable, "-c", MAKE_STORE, str(home.dir)])
    while process.poll() is None and not (making.exists() and making.stat().st_size):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it was made before it could be killed"
    assert not home.mlflow_db.exists()
    assert client(home).search_experiments()
    assert sorted(path.name for path in home.dir.iterdir()) == ["mlflow.db", "mlflow.lock"]


def test_each_split_is_a_data_set_by_what_it_holds(store, tmp_path):
    hashes = {"train": "2" * 64, "validation": "3" * 64, "test": "4" * 64}
    prepared = dataclasses.replace(INSPECTION, split_hashes=hashes, rows={"train": 5, "validation": 3, "test": 0})
    tracker = Tracker(store[0], make_config(tmp_path, name="splits"), prepared)
    given = tracker._client.get_run(tracker.parent_id).inputs.dataset_inputs
    assert {(each.tags[0].value, each.dataset.digest, json.loads(each.dataset.profile)["rows"]) for each in given} == {
        ("training", "2" * 32, 5), ("validation", "3" * 32, 3),
    }  # fmt: skip


def test_what_a_trial_used_of_the_machine_is_there_by_the_clock(store):
    home, config, _ = store
    tracker, paths = Tracker(home, config, INSPECTION), home.sweep(config.name).trial(41)
    run_id = begin(tracker, spec_of(store, 41))
    gpu = {"percent": 90.0, "memory_mb": 2048.0, "power_w": 300.5}
    samples = [{"time_ms": 1000 * i, "cpu_percent": 50.0 + i, "memory_mb": 100.0, "gpus": [gpu]} for i in range(2)]
    paths.dir.mkdir(parents=True)
    cut = '{"time_ms": 3, "gpus": [{"percent": 9}'  # by a kill; the next attempt of an earlier hpo went on in that line
    paths.usage.write_text("\n".join([cut + json.dumps(samples[0]), *map(json.dumps, samples), cut]))
    tracker.finish_trial(41, trial_result("complete", 0.5), paths)
    assert history(tracker, run_id, "system/cpu_utilization_percentage") == [(0, 50.0), (1, 51.0)]
    metrics = tracker._client.get_run(run_id).data.metrics
    assert metrics["system/gpu_0_power_usage_watts"] == 300.5
    assert metrics["system/system_memory_usage_megabytes"] == 100.0


def test_a_run_says_where_it_comes_from_and_what_all_its_settings_are(store):
    origin = {"mlflow.source.git.commit": "c0ffee", "hpo.host": "here"}
    tracker = Tracker(*store[:2], INSPECTION, origin=origin)
    run = tracker._client.get_run(begin(tracker, spec_of(store, 42)))
    for described in (run, parent_of(tracker)):
        assert origin.items() <= described.data.tags.items()
    assert json.loads(run.data.tags["hpo.settings"])["lora_r"] == 8
    assert run.info.run_name == "#042 lr=1.0e-03"
    assert {file.path for file in tracker._client.list_artifacts(tracker.parent_id)} >= {"config.yaml", "file"}


def parent_of(tracker):
    return tracker._client.get_run(tracker.parent_id)


def test_the_sweep_s_run_has_the_champion_and_a_page_for_people(store):
    """And forgets the settings of a champion that another one has beaten: MLflow itself would keep them."""
    tracker = Tracker(*store[:2], INSPECTION)
    for rate in (1e-3, 1e-2):
        champion = trial_record(1, value=0.5, params={"learning_rate": rate}, metrics={"f1_macro": 0.5, "f1/C#": 0.25})
        tracker.finish_sweep(facts_of(trial_record(0, value=0.4, params={"learning_rate": 0.1}), champion))
        tracker.artifact("report.html", "<!doctype html>")
    run = parent_of(tracker)
    assert (run.info.status, run.data.params) == ("FINISHED", {"learning_rate": "0.01"})
    assert (run.data.metrics["champion/f1_macro"], run.data.metrics["champion/f1/C_x23_"]) == (0.5, 0.25)
    page = run.data.tags["mlflow.note.content"]
    assert page.startswith("**champion: trial 1, f1_macro 0.5000")
    assert "[comparison](#/experiments/" in page
    assert f"/runs/{tracker.parent_id}/artifacts/report.html" in page
    assert "| trial |" in page


def test_the_sweep_s_run_says_nothing_that_an_edit_has_taken_away(store):
    tracker = Tracker(*store[:2], INSPECTION)
    tracker.best_so_far(1, 0.4)
    facts = facts_of(trial_record(0, value=0.4), trial_record(1, value=0.5, metrics={"f1_macro": 0.5, "f1/gone": 0.1}))
    gain = FinalistsOutcome("", [], 1, Against(0.1, 0.05, 0.15, 0.01, 0))
    own = dataclasses.replace(facts, summary=dataclasses.replace(facts.summary, finalists=gain), importances=[
        Importance("lora_r", 1.0, 1.0, 1.0),
    ])  # fmt: skip
    tracker.finish_sweep(own)
    logged = {"gain", "gain_low", "gain_high", "importance/lora_r", "champion/f1/gone"}
    assert logged <= parent_of(tracker).data.metrics.keys()
    tracker.finish_sweep(dataclasses.replace(facts, summary=dataclasses.replace(facts.summary, champion=None)))
    run = parent_of(tracker)
    assert set(run.data.metrics) == {"best_so_far/f1_macro", "trials", "hours", "gpu_hours"}
    assert (run.data.tags["hpo.champion"], run.data.params) == ("", {})
