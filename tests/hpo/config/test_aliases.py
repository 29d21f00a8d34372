"""Settings by the names of transformers' TrainingArguments: what they become, and what is refused as written."""

from __future__ import annotations

import pytest

from hpo.commands.preflight import inspect
from hpo.config.trial_specs import TrialSpecs
from hpo.errors import ConfigError
from tests.hpo.builders import INSPECTION, make_config, work
from tests.hpo.builders import Recording as Executor
from trainers.protocol.settings import ALIASES, FIELDS


@pytest.mark.parametrize(
    ("training", "ours"),
    [
        ({"num_train_epochs": 2}, {"max_epochs": 2.0}),
        ({"per_device_train_batch_size": 2}, {"micro_batch_size": 2, "batch_size": 16}),
        (
            {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3},
            {"micro_batch_size": 4, "batch_size": 12},
        ),
        ({"micro_batch_size": 4, "gradient_accumulation_steps": 3}, {"micro_batch_size": 4, "batch_size": 12}),
        ({"micro_batch_size": 4, "gradient_accumulation_steps": 3, "batch_size": 12}, {"batch_size": 12}),
        ({"bf16": True}, {"precision": "bf16"}),
        ({"fp16": True}, {"precision": "fp16"}),
        ({"fp16": True, "bf16": False}, {"precision": "fp16"}),
        ({"bf16": False, "fp16": False}, {"precision": "auto"}),
        ({"bf16": None, "num_train_epochs": None, "precision": "fp32"}, {"precision": "fp32", "max_epochs": 3.0}),
    ],
)
def test_a_setting_by_another_name_is_that_setting(tmp_path, training, ours):
    settings = make_config(tmp_path, training=training).settings
    assert {name: settings[name] for name in ours} == ours
    assert repr(settings["max_epochs"]) == repr(ours.get("max_epochs", 3.0))
    assert set(settings) <= set(FIELDS)


@pytest.mark.parametrize(
    ("training", "problem"),
    [
        ({"num_train_epochs": 0}, "num_train_epochs: got 0; expected a number above 0 and at most 10000"),
        ({"num_train_epochs": 1, "max_epochs": 1},
         "num_train_epochs: max_epochs is given too; they are the same: expected one of them"),
        ({"num_train_epochs": 1, "max_steps": 1},
         "max_steps: num_train_epochs and max_steps are given or searched; expected one of them"),
        ({"per_device_train_batch_size": 2, "micro_batch_size": 2},
         "per_device_train_batch_size: micro_batch_size is given too; they are the same: expected one of them"),
        ({"per_device_train_batch_size": 2.5},
         "per_device_train_batch_size: got 2.5; expected a whole number at least 1 and at most 65536"),
        ({"gradient_accumulation_steps": 2},
         "gradient_accumulation_steps: batch_size is this times micro_batch_size, which is not given; "
         "give per_device_train_batch_size or micro_batch_size too, or batch_size instead"),
        ({"gradient_accumulation_steps": 0, "micro_batch_size": 2},
         "gradient_accumulation_steps: got 0; expected a whole number at least 1 and at most 65536"),
        ({"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "batch_size": 16},
         "gradient_accumulation_steps: 2 times 4 is 8, but batch_size is 16; expected one of them"),
        ({"gradient_accumulation_steps": 9000, "per_device_train_batch_size": 9000},
         "gradient_accumulation_steps: 9000 times 9000 makes batch_size 81000000; "
         "expected a whole number at least 1 and at most 65536"),
        ({"bf16": True, "fp16": True}, "fp16: bf16 and fp16 conflict: both set precision; expected one of them"),
        ({"bf16": "yes"}, "bf16: got 'yes'; expected true or false"),
        ({"fp16": False, "precision": "fp16"},
         "fp16: precision is given too; they are the same: expected one of them"),
        ({"dataloader_num_workers": 4},
         "dataloader_num_workers: is not needed; remove it: rows come tokenized from memory maps, "
         "there is nothing to load meanwhile"),
        ({"num_train_epoch": 4}, "num_train_epoch: unknown key; did you mean 'num_train_epochs'?"),
        ({"eval_steps": 4, "evaluations": 3}, "eval_steps: evaluations is given too; expected one of them"),
        ({"evaluation_rows": 64, "evaluation_share": 0.5},
         "evaluation_rows: evaluation_share is given too; expected one of them"),
        ({"eval_steps": 0}, "eval_steps: got 0; expected a whole number at least 1"),
        ({"logging_steps": 0}, "logging_steps: got 0; expected a whole number at least 1"),
        ({"save_steps": 1.5}, "save_steps: got 1.5; expected a whole number at least 1"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: got 'pissa'; expected one of default, gaussian"),
        ({"modules_to_save": []}, "modules_to_save: got []; expected text, or a list of texts"),
        ({"rank_pattern": {"query": 0}},
         "rank_pattern: got {'query': 0}; "
         "expected a mapping of names to whole numbers at least 1 and at most 1024"),
    ],
)  # fmt: skip
def test_what_is_refused_names_the_key_as_it_was_written(tmp_path, training, problem):
    with pytest.raises(ConfigError) as refused:
        make_config(tmp_path, training=training)
    assert [str(p) for p in refused.value.problems] == [f"{tmp_path / 'sweep.yaml'}:1: training.{problem}"]


@pytest.mark.parametrize(
    "value", [{}, {"a,b": 1}, {"a=b": 1}, {"a": True}, {"a": 1.5}, {"a": "1"}, {"a": 1025}, "a", 3]
)
def test_a_rank_pattern_that_is_none_is_refused(value):
    assert "expected a mapping of names to whole numbers" in (FIELDS["rank_pattern"].refuse(value) or "")


def test_a_name_that_is_no_dimension_says_which_one_is(tmp_path):
    with pytest.raises(ConfigError, match=r"\.num_train_epochs: is a name for training only; search max_epochs"):
        make_config(tmp_path, search_space={"num_train_epochs": {"type": "int", "low": 1, "high": 3}})
    with pytest.raises(ConfigError, match="unknown parameter"):
        make_config(tmp_path, search_space={"bf16": {"type": "choice", "values": [True, False]}})


def test_another_name_says_where_the_baseline_of_a_searched_setting_starts(tmp_path):
    space = {"batch_size": {"type": "choice", "values": [8, 16, 32]}}
    training = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 8}
    assert make_config(tmp_path, training=training, search_space=space).baseline() == {"batch_size": 32}


def test_every_alias_means_a_setting():
    assert all(alias.canonical in FIELDS and alias.help for alias in ALIASES.values())
    assert not set(ALIASES) & set(FIELDS)


@pytest.mark.parametrize(
    ("training", "evaluations"),
    [
        ({"max_steps": 100, "eval_steps": 25}, 4),
        ({"max_steps": 100, "eval_steps": 30}, 3),
        ({"max_steps": 100, "eval_steps": 1000}, 1),
        ({"max_epochs": 2, "eval_steps": 50, "batch_size": 8}, 5),  # 1000 training rows
        ({"max_examples": 640, "eval_steps": 10}, 4),
        ({"max_examples": 640}, 5),
    ],
)
def test_eval_steps_become_evaluations_once_the_budget_is_known(tmp_path, training, evaluations):
    assert make_config(tmp_path, training=training).evaluations(INSPECTION.rows["train"]) == evaluations


def test_eval_steps_count_the_baseline_s_batches_for_every_trial(tmp_path):
    from hpo.paths import Home
    from trainers.protocol.files import TrialPaths

    space = {"batch_size": {"type": "choice", "values": [8, 32]}, "max_epochs": {"type": "choice", "values": [1, 4]}}
    config = make_config(tmp_path, training={"batch_size": 8, "eval_steps": 100}, search_space=space)
    specs = [
        TrialSpecs(config, Home(tmp_path), INSPECTION).spec(1, point, TrialPaths(tmp_path))
        for point in config.space.grid()
    ]
    assert {spec.settings["evaluations"] for spec in specs} == {5}  # of the largest budget: 500 steps of 8
    assert not [spec for spec in specs if "eval_steps" in spec.settings]


def test_more_evaluations_than_any_trial_may_have_are_refused_before_anything_is_written(tmp_path):
    from hpo.paths import Home

    config = make_config(tmp_path, training={"max_steps": 5000, "eval_steps": 1})
    with pytest.raises(ConfigError, match=r"training\.eval_steps: makes 5,000 evaluations of a trial; .* at most 1000"):
        inspect(Executor(work), config, Home(tmp_path / "home"))


def test_lists_and_mappings_are_kept_as_text(tmp_path):
    training = {"modules_to_save": ["a", "b"], "rank_pattern": {"q_proj": 16, "layer.0.": 4}}
    settings = make_config(tmp_path, training=training).settings
    assert (settings["modules_to_save"], settings["rank_pattern"]) == ("a,b", "q_proj=16,layer.0.=4")
    values = [None, {"q_proj": 16}]
    config = make_config(tmp_path, search_space={"rank_pattern": {"type": "choice", "values": values}})
    assert config.space.dimensions["rank_pattern"].grid() == [None, "q_proj=16"]
    assert config.baseline() == {"rank_pattern": None}
