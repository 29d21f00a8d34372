"""What TensorBoard is shown, read back with its own reader."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from hpo.commands.session import tracker_of
from hpo.config.trial_specs import TrialSpecs
from hpo.paths import Home
from hpo.progress_view import Silent
from hpo.results.records import TrialRecord
from hpo.search.finalists import run_finalists
from hpo.tracking.mlflow_tracker import Tracker
from hpo.tracking.tensorboard import EventFile, TensorBoardTracker
from tests.hpo.builders import (
    INSPECTION,
    Killed,
    Recording,
    Sweep,
    evaluation,
    make_config,
    stopping_after,
    trial_result,
    work,
)
from trainers.protocol.codec import to_json
from trainers.protocol.events import Failed

POINTS = [(5, {"train/loss": 4.0, "train/learning_rate": 0.5}), (10, {"train/loss": 2.0, "train/learning_rate": 0.25}),
          (10, {"validation/f1_macro": 0.5, "validation/loss": 2.5}), (15, {"train/loss": 1.0})]  # fmt: skip
DRAWN = {
    "train/loss": [(5, 4.0), (10, 2.0), (15, 1.0)], "train/learning_rate": [(5, 0.5), (10, 0.25)],
    "validation/f1_macro": [(10, 0.5)], "validation/loss": [(10, 2.5)],
}  # fmt: skip
DRAW_FOR_EVER = """
import itertools, json, sys
from pathlib import Path
from hpo.tracking.tensorboard import EventFile
from trainers.protocol.codec import from_json
from trainers.protocol.trial_spec import TrialSpec
file = EventFile(Path(sys.argv[1]), from_json(TrialSpec, json.loads(sys.argv[2])))
for examples in itertools.count():
    file.add(examples, {"train/loss": examples / 2})
"""


@pytest.fixture(scope="module")
def make_spec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spec")
    home, config = Home(folder / "home"), make_config(folder, training={"target_modules": ["query", "value"]})

    def make_spec(seed=0):
        return TrialSpecs(config, home, INSPECTION).spec(3, {}, home.sweep("s").trial(3), seed=seed)

    return make_spec


def drawn(folder):
    """Curve -> [(examples, value)], as TensorBoard reads it."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def shown_settings(folder):
    events = EventAccumulator(str(folder)).Reload()
    shown = HParamsPluginData.FromString(events.PluginTagToContent("hparams")["_hparams_/session_start_info"])
    values = shown.session_start_info.hparams.items()
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in values}


def tell(file):
    for examples, values in POINTS:
        file.add(examples, values)


# --- one file ------------------------------------------------------------------------------------------


def test_curves_are_drawn_over_examples_and_settings_are_shown(tmp_path, make_spec):
    tell(EventFile(tmp_path, make_spec()))
    assert drawn(tmp_path) == DRAWN
    settings = shown_settings(tmp_path)
    assert (settings["method"], settings["lora_r"], settings["seed"]) == ("lora", 8, 0)
    assert (settings["target_modules"], settings["learning_rate"]) == ("query,value", 0.0005)
    assert "warmup_steps" not in settings, "what is not given is not shown"


@for_all(data=st.data(), rest=st.sampled_from([b"", b"\0" * 64, b"\xff" * 40]))
def test_whatever_a_kill_or_a_power_cut_leaves_the_curves_are_whole_in_the_end(tmp_path_factory, make_spec, data, rest):
    """The file is cut anywhere; the next session is told again all that came before."""
    folder = tmp_path_factory.mktemp("events")
    tell(EventFile(folder, make_spec()))
    [path] = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))] + rest)
    tell(EventFile(folder, make_spec()))
    assert drawn(folder) == DRAWN
    assert shown_settings(folder)["lora_r"] == 8
    assert [p.name for p in folder.iterdir()] == [path.name]


def test_a_process_killed_while_it_writes_is_followed_by_one_that_goes_on(tmp_path, make_spec):
    for _ in range(3):
        size = sum(p.stat().st_size for p in tmp_path.iterdir())
        command = [sys.executable, "-c", DRAW_FOR_EVER, str(tmp_path), json.dumps(to_json(make_spec()))]
        process = subprocess.Popen(command)
        while process.poll() is None and sum(p.stat().st_size for p in tmp_path.iterdir()) < size + 20_000:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    losses = drawn(tmp_path)["train/loss"]
    assert losses == [(examples, examples / 2) for examples in range(len(losses))]
    assert len(losses) > 500


def test_another_attempt_draws_only_what_lies_beyond(tmp_path, make_spec):
    """Steps are told twice a second, so another attempt tells of others."""
    file = EventFile(tmp_path, make_spec())
    for examples in (5, 10, 15, 20, 12, 18, 24):
        file.add(examples, {"train/loss": 0.5})
    assert [examples for examples, _ in drawn(tmp_path)["train/loss"]] == [5, 10, 15, 20, 24]


def test_another_trial_of_the_same_number_begins_anew(tmp_path, make_spec):
    tell(EventFile(tmp_path, make_spec()))
    EventFile(tmp_path, make_spec(seed=9)).add(5, {"train/loss": 3.0})
    assert drawn(tmp_path) == {"train/loss": [(5, 3.0)]}
    assert shown_settings(tmp_path)["seed"] == 9


def test_a_running_tensorboard_sees_a_trial_go_on(tmp_path, make_spec):
    EventFile(tmp_path, make_spec()).add(5, {"train/loss": 3.0})
    watching = EventAccumulator(str(tmp_path)).Reload()
    EventFile(tmp_path, make_spec()).add(10, {"train/loss": 2.0})
    assert [e.step for e in watching.Reload().Scalars("train/loss")] == [5, 10]


# --- a sweep -------------------------------------------------------------------------------------------


def dying_after(messages, worker):
    """An executor in a process that is killed when so many messages have come."""
    executor = Recording(worker)
    wait, left = executor.wait, itertools.count(messages, -1)

    def until_killed(timeout_s=None):
        if next(left) == 0:
            raise Killed
        return wait(timeout_s)

    executor.wait = until_killed
    return executor


def crashing_once():
    """A trainer whose every trial crashes in its first attempt, between two evaluations."""
    crashed = set()

    def worker(request):
        for count, event in enumerate(events := work(request)):
            if count == 5 and request.spec.number not in crashed:
                crashed.add(request.spec.number)
                events.close()
                yield Failed("crash", "broken")
                return
            yield event

    return worker


@pytest.fixture
def sweep(tmp_path, database):
    return Sweep(
        tmp_path, database, report_to=["tensorboard"], pruner={"type": "none"},
        search_space={"learning_rate": {"type": "choice", "values": [1e-3, 5e-4, 1e-4]}},
        training={"max_examples": 100, "evaluations": 5}, search_strategy={"type": "grid"},
        finalists={"top": 1, "seeds": 2}, trials={"retries": 1000},
    )  # fmt: skip


def tracker(given):
    return tracker_of(given.specs, Silent())


def test_every_trial_is_drawn_once_whatever_kills_and_crashes_came_between(sweep):
    worker = crashing_once()
    for messages in itertools.count(1):
        try:
            sweep.search(dying_after(messages, worker), tracker=tracker(sweep))
        except Killed:
            continue
        break
    assert messages > 5
    for number in range(3):
        curves, result = drawn(sweep.home.events(sweep.config.name, number)), sweep.result_on_disk(number)
        assert [examples for examples, _ in curves["train/loss"]] == [20, 40, 60, 80, 100]
        assert [examples for examples, _ in curves["train/learning_rate"]] == [20, 40, 60, 80, 100]
        assert curves["validation/f1_macro"] == [
            (e.examples, pytest.approx(e.metrics["f1_macro"])) for e in result.evaluations
        ]
        assert curves["optimizer_step"] == [(e.examples, e.step) for e in result.evaluations]
        assert curves["best/f1_macro"] == [(100, pytest.approx(result.value))]


def test_a_stopped_trial_that_goes_on_is_drawn_with_its_last_best(sweep):
    paths = sweep.home.sweep(sweep.config.name).trial(0)
    shown, spec = tracker(sweep), sweep.specs.spec(0, {}, paths)
    stopped, later = evaluation(1, 0.5, 0.4), evaluation(2, 1.0, 0.5)
    for ended in (trial_result("pruned", 0.4, evaluations=[stopped]), trial_result(evaluations=[stopped, later])):
        shown.start_trial(spec, TrialRecord(0, "running", {}, ""), is_baseline=True)
        shown.finish_trial(0, ended, paths)
    curves = drawn(sweep.home.events(sweep.config.name, 0))
    assert curves["best/f1_macro"] == [(10, pytest.approx(0.4)), (20, pytest.approx(0.5))]


def test_repeats_of_finalists_have_curves_of_their_own(sweep):
    sweep.search(tracker=tracker(sweep))
    with pytest.raises(Killed):
        run_finalists(sweep.running(stopping_after(1), tracker=tracker(sweep)))
    run_finalists(sweep.running(tracker=tracker(sweep)))
    repeats = sweep.open().state.finalists.contestants
    names = {f"trial-{c.trial:04d}-seed-{i}" for c in repeats for i in range(len(c.repeats))}
    folder = sweep.home.dir / "tensorboard" / sweep.config.name
    assert {path.name for path in folder.iterdir()} == {f"trial-{n:04d}" for n in range(3)} | names
    for contestant in repeats:
        for index, repeat in enumerate(contestant.repeats):
            curves = drawn(sweep.home.events(sweep.config.name, contestant.trial, index))
            assert len(curves["validation/f1_macro"]) == 5
            assert curves["best/f1_macro"] == [(100, pytest.approx(repeat.value))]


def test_only_who_asks_for_it_gets_event_files(sweep):
    assert isinstance(tracker(sweep), TensorBoardTracker)
    for report_to in ([], ["mlflow"], None):
        assert type(tracker(sweep.edit(report_to=report_to))) is Tracker
    assert not (sweep.home.dir / "tensorboard").exists()
