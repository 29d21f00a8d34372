"""Memory before a sweep: a real one in processes that may not grow, of which none runs out of memory."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from hpo.commands.memory import (
    SHARDED,
    UNMEASURED,
    Measured,
    free_settings,
    jobs_on_a_device,
    may_be_sharded,
    measured,
    memory_plan,
    plan_memory,
    plan_memory_on_nodes,
)
from hpo.commands.plan import make_plan
from hpo.commands.show import read_sweep, show_sweep
from hpo.commands.sweep import run_sweep
from hpo.config.trial_specs import TrialSpecs
from hpo.executors.inline import InlineExecutor
from hpo.paths import Home
from hpo.results.leaderboard import notes
from hpo.trials.fitting import kind_of
from hpo.trials.node_slots import choose_node_slots
from hpo.trials.slots import MARGIN
from tests.hpo.builders import INSPECTION, Said, make_config
from tests.hpo.executors.driving import HERE
from tests.hpo.executors.measured import MODEL
from tests.hpo.trials.test_node_slots import place
from tests.hpo.trials.test_slots import with_gpus
from trainers.protocol.events import Failed
from trainers.protocol.files import TrialPaths

RATES = {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}}
TRIALS = {"type": "random", "num_trials": 500}


@pytest.fixture(params=[1])
def crowded(request, write_yaml, monkeypatch):
    """A token takes 4 MB, so 16 rows of the default micro-batch do not fit into 0.4 GB; a full fine-tune never does.

    The parameter is how many processes a trial has, each with as much.
    """
    devices = request.param
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parents[2])]))
    choices = {"method": ["lora", "full"], "batch_size": [4, 32]}
    return write_yaml(
        search_space={name: {"type": "choice", "values": values} for name, values in choices.items()},
        trials={"memory_gb": 0.4 * devices}, search_strategy={"type": "grid"}, promote=False,
        training={"max_examples": 64, "evaluations": 1, "max_length": 64, "learning_rate": 1e-2, "devices": devices},
    )  # fmt: skip


def test_a_plan_says_what_fits_and_what_is_not_tried(crowded, home):
    view = Said()
    plan = make_plan(crowded, Home(home), 1, view, worker="crowded")
    assert json.loads(json.dumps(plan, allow_nan=False)) == plan
    assert view.lines[1] == "memory may be short: measuring what trials need"
    assert {probe["params"]["method"] for probe in plan["probes"]} == {"lora"}
    assert (plan["trials"], len(plan["not_tried"]["points"])) == (2, 2)
    fits, chosen, left_out = plan["notes"][:3]
    assert fits.startswith("memory: 0.4 GB for 1 trial at a time; the median point needs about ")
    assert "(with micro_batch_size: " in fits
    assert chosen.startswith("memory: 1 of 2 points run with fewer rows at a time")
    assert left_out.startswith("not tried: 2 points, which need about ")


def test_no_trial_of_a_real_sweep_runs_out_of_memory(crowded, home_with_store):
    view = Said()
    summary = run_sweep(crowded, Home(home_with_store), jobs=1, view=view, worker="crowded")
    assert [(t.params["method"], t.state, list(t.attempts)) for t in summary.trials] == [("lora", "complete", [])] * 2
    left_out = [(point.params["method"], point.params["batch_size"]) for point in summary.left_out.points]
    assert left_out == [("full", 4), ("full", 32)]
    settings = [json.loads(file.read_text())["settings"] for file in home_with_store.glob("**/spec.json")]
    assert {s["batch_size"] for s in settings} == {4, 32}
    assert all(s["micro_batch_size"] < 16 for s in settings if s["batch_size"] == 32)
    said = "\n".join(view.lines)
    assert "memory: 0.4 GB for 1 trial at a time" in said
    assert "not tried: 2 points, which need about " in said
    assert "every point of the space that fits into memory has been tried" in said
    shown = read_sweep(Home(home_with_store), "tiny-encoder")
    tables = []
    view.table = lambda title, columns, rows, joinable=0: tables.append(rows)
    show_sweep(view, shown, hints=False)
    states = [row[2] for row in tables[0]]
    assert states[:2] == ["complete"] * 2
    assert all(state.startswith("not tried: needs about") and state.endswith("of 0.4 GB") for state in states[2:])
    assert any(line.startswith("not tried: 2 points") for line in notes(shown))


@pytest.mark.parametrize("crowded", [2], indirect=True)
def test_no_process_of_trials_on_two_devices_runs_out_of_memory(crowded, home_with_store):
    view = Said()
    summary = run_sweep(crowded, Home(home_with_store), jobs=1, view=view, worker="crowded")
    assert [(t.params["method"], t.state, list(t.attempts)) for t in summary.trials] == [("lora", "complete", [])] * 2
    assert {point.params["method"] for point in summary.left_out.points} == {"full"}
    specs = [json.loads(file.read_text()) for file in home_with_store.glob("**/spec.json")]
    assert {spec["settings"]["batch_size"]: len(spec["devices"]) for spec in specs} == {4: 2, 32: 2}
    assert all(s["settings"]["micro_batch_size"] < 16 for s in specs if s["settings"]["batch_size"] == 32)
    assert "memory: 0.8 GB for 1 trial at a time (of 2 processes); the median point needs" in "\n".join(view.lines)


# --- the sums ------------------------------------------------------------------------------------------


def planned(tmp_path, limit_mb, wanted=4, *, is_given=False, prepared=INSPECTION, **changes):
    space = {"batch_size": {"type": "choice", "values": [4, 16]}, "lora_r": {"type": "choice", "values": [8, 64]}}
    config = make_config(tmp_path, search_space=space, **changes)
    specs = TrialSpecs(config, Home(tmp_path / "home"), prepared)
    kind = kind_of(specs.spec(0, config.baseline(), TrialPaths(tmp_path)))
    return memory_plan(specs, Measured({kind: MODEL}), limit_mb, wanted, is_given=is_given)


def test_as_many_at_a_time_as_cost_no_trial_anything(tmp_path):
    """The largest point needs 100 + 64 + 16 x 10 MB; with four rows at a time 204."""
    assert planned(tmp_path, 4 * MARGIN * 324).jobs == 4
    assert planned(tmp_path, 4 * MARGIN * 204 + 1).jobs == 4
    assert planned(tmp_path, 4 * MARGIN * 204 - 1).jobs == 3
    assert planned(tmp_path, MARGIN * 204).jobs == 1
    assert planned(tmp_path, MARGIN * 204, is_given=True).jobs == 4


def test_two_lines_for_a_person(tmp_path):
    assert planned(tmp_path, 10_000).lines == (
        "memory: 9.8 GB for 4 trials at a time; the median point needs about 0.3 GB, the largest 0.3 GB",
    )
    first, second, third = planned(tmp_path, 120).lines
    assert first.startswith("memory: 0.1 GB for 1 trial at a time;")
    assert second.endswith("points run with fewer rows at a time, or with gradient_checkpointing, to fit")
    assert third == "not tried: 2 points, which need about 0.2 GB of 0.1 GB"


def test_a_kind_that_runs_out_of_memory_at_its_smallest_too_is_impossible_and_a_crash_says_nothing(tmp_path):
    methods, ranks = {"type": "choice", "values": ["lora", "full", "ia3"]}, {"type": "int", "low": 4, "high": 64}
    config = make_config(tmp_path, search_space={"method": methods, "lora_r": {**ranks, "when": {"method": "lora"}}})
    asked = []

    def answers(request):
        asked.append((request.spec.method, request.spec.settings.get("lora_r")))
        causes = {("lora", 64): "oom", ("full", None): "oom", ("ia3", None): "crash"}
        cause = causes.get(asked[-1])
        yield MODEL if cause is None else Failed(cause, "why")

    specs = TrialSpecs(config, Home(tmp_path / "home"), INSPECTION)
    found = measured(InlineExecutor(answers), specs, 100.0)
    assert asked == [("lora", 64), ("lora", 4), ("full", None), ("ia3", None)]
    assert [kind[0] for kind in found.models] == ["lora"]
    assert [kind[0] for kind in found.impossible] == ["full"]


@pytest.mark.parametrize("values", [[0.0, 0.1], [0.1, 0.0]])
def test_trials_with_dropout_are_measured_in_whatever_order_the_file_has_its_values(tmp_path, values):
    config = make_config(tmp_path, search_space={"lora_dropout": {"type": "choice", "values": values}})
    asked = []

    def answers(request):
        asked.append(request.spec.settings["lora_dropout"])
        yield MODEL

    measured(InlineExecutor(answers), TrialSpecs(config, Home(tmp_path / "home"), INSPECTION), 100.0)
    assert asked == [0.1, 0.0]


def test_trials_of_several_processes_take_several_times_the_memory(tmp_path):
    """The largest point needs 100 + 64 + 8 x 10 MB of each process."""
    both = {"training": {"devices": 2}}
    plan = planned(tmp_path, 3 * 2 * MARGIN * 244, **both)
    assert (plan.jobs, plan.trial_mb) == (3, MARGIN * 244)
    fits = "memory: 1.8 GB for 3 trials at a time (of 2 processes)"
    assert plan.lines == (f"{fits}; the median point needs about 0.4 GB, the largest 0.5 GB",)
    given = planned(tmp_path, 2 * MARGIN * 204, is_given=True, wanted=1, **both)
    assert "(with micro_batch_size: 4 about 0.4 GB)" in given.lines[0]


def test_gpus_are_planned_in_groups_of_as_many_as_a_trial_has(tmp_path):
    def plan(limit_mb, gpus, wanted):
        return planned(tmp_path, limit_mb, wanted, prepared=with_gpus(gpus, limit_mb), training={"devices": 2})

    assert plan(2 * MARGIN * 244, 4, 4).jobs == 2 * 2
    assert plan(2 * MARGIN * 244, 5, 1).jobs == 2
    found = plan(MARGIN * 244, 2, 4)
    assert (found.jobs, found.trial_mb) == (1, MARGIN * 244)
    assert found.lines[0].startswith("memory: 0.3 GB for 1 trial at a time on each of its 2 GPUs; the median point")


@pytest.mark.parametrize(
    ("gpus", "devices", "asked", "jobs"),
    [(0, 2, None, 4), (0, 16, None, 1), (0, 2, 5, 5), (4, 2, None, 2), (5, 2, 3, 2), (4, 1, None, 2), (4, 1, 6, 2)],
)
def test_eight_cores_feed_the_processes_of_trials(tmp_path, gpus, devices, asked, jobs):
    config = make_config(tmp_path, search_space=RATES, search_strategy=TRIALS, training={"devices": devices})
    assert jobs_on_a_device(TrialSpecs(config, Home(tmp_path / "home"), with_gpus(gpus)), asked, 8) == jobs


@pytest.mark.parametrize(
    ("shard", "gpus", "gpu_memory_mb", "may_be"),
    [
        ("auto", 0, 0.0, False), ("full", 0, 0.0, True), ("off", 2, 1.0, False), ("full", 2, 1e6, True),
        ("auto", 2, 661.0, True), ("auto", 2, 667.0, False),
    ],
)  # fmt: skip
def test_a_base_that_may_be_sharded_is_not_planned_for(tmp_path, shard, gpus, gpu_memory_mb, may_be):
    """100 Mi parameters take 400 MB, which is 0.6 of 666.7."""
    config = make_config(tmp_path, training={"devices": 2, "shard": shard})
    prepared = replace(with_gpus(gpus, gpu_memory_mb), parameters=100 << 20)
    specs = TrialSpecs(config, Home(tmp_path / "home"), prepared)
    assert may_be_sharded(specs) is may_be
    quantized = make_config(tmp_path, method="qlora", training={"devices": 2, "shard": "auto"})
    assert not may_be_sharded(TrialSpecs(quantized, specs.home, prepared))
    if may_be:
        executor = InlineExecutor(lambda request: iter(()))
        assert plan_memory(executor, specs, None, lambda text: None) is SHARDED
        alone = TrialSpecs(make_config(tmp_path, training={"devices": 1}), specs.home, prepared)
        assert not may_be_sharded(alone)


class Nodes(InlineExecutor):
    """Machines of two kinds that measure as `MODEL` says, and how often they were asked to."""

    def __init__(self, *places):
        super().__init__(self.answer)
        self.now, self.asked = places, []

    def answer(self, request):
        self.asked.append(request.most_mb)
        yield MODEL

    def places(self):
        return self.now


def planned_on(tmp_path, *places, jobs=None, **changes):
    nodes = Nodes(*places)
    config = make_config(tmp_path, search_space=RATES, search_strategy=TRIALS, **changes)
    specs = TrialSpecs(config, Home(tmp_path / "home"), INSPECTION)
    plan = plan_memory_on_nodes(nodes, specs, jobs, lambda text: None)
    return plan, nodes


def test_over_nodes_trials_fit_on_the_one_that_has_least(tmp_path):
    """A trial needs 100 + 8 + 16 x 10 MB; with four rows at a time 148."""
    room_mb, needs_mb = 3.5 * MARGIN * 148, MARGIN * 148
    plan, nodes = planned_on(tmp_path, place("a", 64, 100 * room_mb), place("b", 8, room_mb))
    assert nodes.asked == [room_mb]
    assert (plan.fitting.limit_mb, plan.fitting.at_a_time, plan.trial_mb) == (room_mb, 3, needs_mb)
    assert plan.lines[0] == "memory: planned for b, which has least of 2 nodes"
    slots = choose_node_slots(nodes, 500, None, None, None, trial_mb=plan.trial_mb)
    assert len(slots.open()) == 64 + 3
    assert planned_on(tmp_path, place("b", 8, room_mb))[0].lines[0].startswith("memory: 0.6 GB for 3 trials")
    gpus, _ = planned_on(tmp_path, place("a", 8, 1e6, 2, room_mb), place("b", 8, 1e6, 4, 9 * room_mb))
    assert (gpus.fitting.limit_mb, gpus.fitting.at_a_time) == (room_mb, 3)


def test_nodes_that_do_not_have_the_gpus_of_a_trial_are_not_planned_for(tmp_path):
    places = [place("a", 8, 1e6, 1, 1000.0), place("b", 8, 1e6, 2, 2000.0)]
    plan, nodes = planned_on(tmp_path, *places, training={"devices": 2})
    assert (plan.fitting.limit_mb, nodes.asked) == (2000.0, [2000.0])
    sharded, nodes = planned_on(tmp_path, *places, places[1], training={"devices": 2, "shard": "full"})
    assert (sharded, nodes.asked) == (SHARDED, [])


def test_what_differs_by_device_or_is_ample_or_unknown_is_not_measured(tmp_path):
    unknown = [place("a", gpus=1), place("b", gpus=1, gpu_memory_mb=100.0)]
    for places in ([place("a", 1, 1e6)], [place("a"), unknown[1]], unknown, []):
        plan, nodes = planned_on(tmp_path, *places)
        assert (plan, nodes.asked) == (UNMEASURED, [])


def test_what_the_file_says_stays(tmp_path):
    said = {"training": {"per_device_train_batch_size": 16, "gradient_checkpointing": False}}
    assert free_settings(make_config(tmp_path, **said)) == frozenset()
    assert free_settings(make_config(tmp_path)) == {"micro_batch_size", "gradient_checkpointing"}
