"""`hpo plan`: what a sweep would run, take and cost, measured on the tiny model; and it writes nothing."""

from __future__ import annotations

import dataclasses
import json

import pytest

from hpo.commands.plan import corners, estimate, make_plan
from hpo.config.budget import Spent
from hpo.config.file import load_config
from hpo.config.trial_specs import TrialSpecs
from hpo.errors import ConfigError
from hpo.paths import Home
from hpo.progress_view import Silent
from tests.hpo.builders import INSPECTION, RATE, Said, Sweep, make_config
from trainers.protocol.events import Probed

RANKS = {"lora_r": {"type": "int", "low": 4, "high": 16}}
SMALL = Probed(1000, seconds_per_example=0.01, seconds_per_evaluation=1.0, memory_mb=100.0, adapter_mb=1.0)
LARGE = dataclasses.replace(SMALL, seconds_per_example=0.03, memory_mb=300.0)


# --- the real thing ------------------------------------------------------------------------------------


def test_a_plan_is_measured_and_nothing_is_written(write_yaml, home):
    ranks = {"lora_r": {"type": "int", "low": 8, "high": 32}}  # the least is the default
    path = write_yaml(search_space=ranks, finalists={"top": 2, "seeds": 3}, budget={"cost": {"per_hour": 2}})
    view = Said()
    plan = make_plan(path, Home(home), 1, view)
    assert json.loads(json.dumps(plan, allow_nan=False)) == plan
    assert (plan["sweep"], plan["trials"], plan["trials_left"], plan["repeats"]) == ("tiny-encoder", 2, 2, 6)
    assert plan["strategy"]["type"] == "informed"
    assert (plan["rows"], plan["examples_per_trial"]) == ({"train": 180, "validation": 40, "test": 20}, 160)
    assert [probe["point"] for probe in plan["probes"]] == ["baseline", "largest"]
    smallest, largest = plan["probes"]
    assert smallest["trainable_parameters"] < largest["trainable_parameters"]
    assert smallest["adapter_mb"] < largest["adapter_mb"]
    for probe in plan["probes"]:
        assert 0 < probe["seconds_per_example"] < 1
        assert 0 < probe["seconds_per_evaluation"] < 10
        assert 0 < probe["memory_mb"] < 2000
    assert 0 < plan["cost"] == pytest.approx(plan["seconds"] / 3600 * 2)
    assert view.lines == ["tiny-encoder: reading data and model, then training a few steps"]
    # Tokenized data and nothing else: no study, no run, no sweep.
    assert {entry.name for entry in home.iterdir()} == {"cache"}


def test_bad_data_is_found_by_the_plan_and_leaves_nothing(write_yaml, home, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "a", "label": "b"}\n{"text"\n')
    path = write_yaml(data={"train": str(broken), "validation_size": 1, "test_size": 1})
    with pytest.raises(ConfigError, match=r"broken\.jsonl"):
        make_plan(path, Home(home), None, Silent())
    assert not home.exists() or {entry.name for entry in home.iterdir()} <= {"cache"}


def test_an_edit_that_a_sweep_would_refuse_is_refused(tmp_path, database):
    given = Sweep(tmp_path, database)
    given.open()
    given.edit(seed=7)
    with pytest.raises(ConfigError, match="seed: was 0"):
        make_plan(given.config.file, given.home, None, Silent())


# --- the sum -------------------------------------------------------------------------------------------


def estimated(tmp_path, jobs=1, small=SMALL, large=LARGE, inspection=INSPECTION, **changes):
    config = make_config(tmp_path, **{"search_space": RANKS, "training": {"max_examples": 1000}, **changes})
    probes = {name: (point, large if name == "largest" else small) for name, point in corners(config).items()}
    return estimate(TrialSpecs(config, Home(tmp_path / "home"), inspection), probes, jobs)


def test_corners_are_the_default_the_least_and_the_most(tmp_path):
    space = {**RATE, **RANKS, "batch_size": {"type": "choice", "values": [8, 32, 16]},
             "lr_scheduler_type": {"type": "choice", "values": ["cosine", "linear"]}}  # fmt: skip
    found = corners(make_config(tmp_path, search_space=space))
    rest = {"lr_scheduler_type": "linear"}
    assert found == {
        "baseline": {"learning_rate": 5e-4, "lora_r": 8, "batch_size": 16, **rest},
        "smallest": {"learning_rate": 1e-5, "lora_r": 4, "batch_size": 8, **rest},
        "largest": {"learning_rate": 1e-1, "lora_r": 16, "batch_size": 32, **rest},
    }
    assert list(corners(make_config(tmp_path, search_space={}))) == ["baseline"]


def test_time_is_trials_and_repeats_by_what_a_corner_takes_on_the_mean(tmp_path):
    """15 s at two corners, 35 s at the third."""
    strategy = {"type": "random", "num_trials": 10}
    one = estimated(tmp_path, search_strategy=strategy)
    assert [probe["trial_seconds"] for probe in one["probes"]] == [15.0, 15.0, 35.0]
    mean = (15 + 15 + 35) / 3
    assert one["seconds"] == pytest.approx(10 * mean)
    assert estimated(tmp_path, jobs=4, search_strategy=strategy)["seconds"] == pytest.approx(3 * mean)
    finals = estimated(tmp_path, jobs=4, search_strategy=strategy, finalists={"top": 2, "seeds": 2})
    assert finals["repeats"] == 6
    assert finals["seconds"] == pytest.approx((3 + 2) * mean)
    uneven = estimated(tmp_path, jobs=2, search_strategy=strategy, finalists={"top": 2, "seeds": 3})
    assert uneven["seconds"] == pytest.approx((5 + 3 * 2) * mean)  # each seed of three contestants takes two rounds


def test_a_plan_of_a_sweep_on_a_cluster_says_that_it_is_of_this_machine(tmp_path):
    note = "run.executor: ray: measured and planned for this machine, not for the cluster's nodes"
    assert estimated(tmp_path, run={"executor": "ray"})["notes"][0] == note
    assert note not in estimated(tmp_path)["notes"]


def test_a_budget_ends_it_earlier_and_is_named(tmp_path):
    strategy = {"type": "random", "num_trials": 10}
    plan = estimated(tmp_path, search_strategy=strategy, budget={"hours": 0.01, "cost": {"per_hour": 100}})
    assert (plan["seconds"], plan["ends_by"]) == (pytest.approx(36.0), "hours: 0.01")
    assert plan["cost"] == pytest.approx(1.0)
    assert estimated(tmp_path, search_strategy=strategy)["ends_by"] == "all trials done"
    assert estimated(tmp_path, search_strategy=strategy, budget={"trials": 4})["trials"] == 4


def test_trials_that_are_done_are_not_planned_again(tmp_path, database):
    given = Sweep(tmp_path, database, search_space=RANKS, search_strategy={"type": "random", "num_trials": 3})
    given.search()
    given.edit(search_strategy={"type": "random", "num_trials": 8})
    probes = {"baseline": (given.config.baseline(), SMALL)}
    plan = estimate(given.specs, probes, 1)
    assert (plan["trials"], plan["trials_left"]) == (8, 5)
    assert plan["seconds"] == pytest.approx(5 * plan["probes"][0]["trial_seconds"])


def test_where_memory_is_short_the_largest_point_decides_how_many_run_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr("hpo.trials.slots.cores", lambda: 8)
    monkeypatch.setattr("hpo.trials.slots.available_memory_mb", lambda: 1200.0)
    plan = estimated(tmp_path, jobs=None, search_strategy={"type": "random", "num_trials": 10})
    assert plan["jobs"] == 3  # 1200 / (300 x 1.25)


def test_a_space_without_end_has_no_number_of_points(tmp_path):
    assert estimated(tmp_path)["points"] == 13
    assert estimated(tmp_path, search_space=RATE)["points"] is None
    assert load_config(tmp_path / "sweep.yaml", Home(tmp_path)).space.dimensions


def test_a_budget_is_what_earlier_sessions_have_left_of_it(tmp_path, database):
    strategy, budget = {"type": "random", "num_trials": 10}, {"hours": 0.1, "cost": {"per_hour": 100}}
    given = Sweep(tmp_path, database, search_space=RANKS, search_strategy=strategy, budget=budget)
    study = given.open()
    study.update_state(spent=Spent(seconds=300.0))
    study.close()
    plan = estimate(given.specs, {"baseline": (given.config.baseline(), LARGE)}, 1)
    assert (plan["seconds"], plan["ends_by"]) == (pytest.approx(60.0), "hours: 0.1")
    assert plan["cost"] == pytest.approx(100 / 60)


def test_a_trial_takes_no_longer_than_it_may(tmp_path):
    strategy = {"type": "random", "num_trials": 10}
    plan = estimated(tmp_path, search_strategy=strategy, budget={"trial_minutes": 0.25})
    assert plan["seconds"] == pytest.approx(10 * 15)
    assert [probe["trial_seconds"] for probe in plan["probes"]] == [15.0, 15.0, 35.0]


def test_gpu_hours_end_it_on_gpus_alone(tmp_path):
    strategy, budget = {"type": "random", "num_trials": 10}, {"gpu_hours": 0.01}
    assert estimated(tmp_path, search_strategy=strategy, budget=budget)["ends_by"] == "all trials done"
    on_gpus = dataclasses.replace(INSPECTION, gpus=2)
    plan = estimated(tmp_path, jobs=2, search_strategy=strategy, budget=budget, inspection=on_gpus)
    assert (plan["seconds"], plan["ends_by"]) == (pytest.approx(18.0), "gpu_hours: 0.01")


def test_a_space_of_few_points_has_no_more_trials(tmp_path, monkeypatch):
    monkeypatch.setattr("hpo.trials.slots.cores", lambda: 16)
    monkeypatch.setattr("hpo.trials.slots.available_memory_mb", lambda: float(1 << 20))
    ranks = {"lora_r": {"type": "choice", "values": [4, 8, 16]}}
    plan = estimated(tmp_path, jobs=None, search_space=ranks)
    assert (plan["trials"], plan["trials_left"], plan["jobs"], plan["threads"]) == (3, 3, 3, 5)
    assert estimated(tmp_path, jobs=None, search_space={"lora_r": 8})["threads"] == 16
