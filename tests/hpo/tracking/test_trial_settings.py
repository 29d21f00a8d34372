"""What a trial's run is called, and which settings it shows."""

from __future__ import annotations

from hpo.tracking.trial_settings import parameters, repeat_name, set_by_file, trial_name
from tests.hpo.builders import RATE, make_config

POINT = {"learning_rate": 4.8e-4, "lora_r": 16, "batch_size": 16}


def test_names_of_runs_sort_and_read():
    assert trial_name(7, 20, POINT, is_baseline=False) == "#007 lr=4.8e-04 r=16 bs=16"
    assert trial_name(0, 20, {}, is_baseline=True) == "#000 baseline"
    assert trial_name(7, 10_000, {"lora_dropout": 0.15}, is_baseline=False) == "#0007 dropout=0.15"
    assert repeat_name(7, 20, 1) == "#007 seed 1"
    names = [trial_name(n, 10_000, POINT, is_baseline=False) for n in (9999, 20, 3)]
    assert sorted(names) == names[::-1]
    assert len(trial_name(1, 2, {f"setting_{n}": "x" * 100 for n in range(20)}, is_baseline=False)) <= 200


def test_what_is_at_its_default_is_no_parameter(tmp_path):
    config = make_config(tmp_path, search_space=RATE, training={"lora_r": 4, "max_epochs": 3, "weight_decay": 0.0})
    assert set_by_file(config) == {"lora_r": 4, "weight_decay": 0.0}
    assert parameters(config, {"learning_rate": 5e-4}) == {"lora_r": 4, "weight_decay": 0.0, "learning_rate": 5e-4}


def test_a_method_that_the_file_sets_is_a_parameter(tmp_path):
    assert parameters(make_config(tmp_path, method="dora"), {}) == {"method": "dora"}


def test_what_a_trial_s_method_does_not_read_is_no_parameter(tmp_path):
    space = {"method": {"type": "choice", "values": ["lora", "ia3"]}, **RATE}
    config = make_config(tmp_path, search_space=space, training={"lora_r": 4, "learning_rate": 5e-3, "batch_size": 4})
    assert parameters(config, {"method": "ia3"}) == {"method": "ia3", "batch_size": 4}
    assert parameters(config, {"method": "lora"}) == {"method": "lora", "batch_size": 4, "lora_r": 4}
