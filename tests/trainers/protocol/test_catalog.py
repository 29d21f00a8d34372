"""The catalog is complete: every name it mentions is declared, every default is allowed."""

from __future__ import annotations

import pytest

from trainers.protocol.catalog import METHODS, METRICS, TASKS, default_settings
from trainers.protocol.settings import FIELDS


def test_every_default_is_a_value_its_field_allows():
    refused = {name: f.refuse(f.default) for name, f in FIELDS.items()}
    assert not {name: why for name, why in refused.items() if why}


def test_every_task_names_declared_metrics_and_fields():
    for task in TASKS.values():
        assert set(task.metrics) <= set(METRICS)
        assert set(task.defaults) <= set(FIELDS)


def test_every_task_has_its_file():
    from trainers.tasks.table import TASKS as WORK

    assert set(WORK) == set(TASKS)
    assert all(name == task.name for name, task in WORK.items())


@pytest.mark.parametrize("method", METHODS)
def test_methods_get_only_the_settings_they_read(method):
    settings = default_settings("chat", method)
    assert all(not FIELDS[name].methods or method in FIELDS[name].methods for name in settings)
    own = METHODS[method].defaults
    assert settings["learning_rate"] == own.get("learning_rate", TASKS["chat"].defaults["learning_rate"])
    assert settings["batch_size"] == TASKS["chat"].defaults["batch_size"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", 0), ("learning_rate", "1e-3"), ("lora_r", 0), ("lora_r", 2.5), ("batch_size", True),
     ("lr_scheduler_type", "linaer"), ("lora_dropout", 0.95), ("max_length", None)],
)  # fmt: skip
def test_values_out_of_bounds_are_refused_with_what_would_be_right(name, value):
    assert FIELDS[name].describe() in (FIELDS[name].refuse(value) or "")
