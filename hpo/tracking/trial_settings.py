"""Which settings are a trial's parameters in MLflow, and the name of its run: what was searched or set. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from hpo.config.sweep_config import SweepConfig
from trainers.protocol.catalog import METHOD, default_settings
from trainers.protocol.settings import FIELDS, Setting

_SHORT = {
    "learning_rate": "lr", "lora_r": "r", "lora_alpha": "alpha", "alpha_ratio": "alpha/r", "lora_dropout": "dropout",
    "batch_size": "bs", "weight_decay": "wd", "warmup_ratio": "warmup", "max_epochs": "epochs", "max_steps": "steps",
    "max_examples": "examples", "max_length": "len",
}  # fmt: skip
"""What people call the settings that most sweeps search."""
_LONGEST_VALUE = 20
_LONGEST = 200
"""Of a run's name, in characters; MLflow's table shows about 40."""


def set_by_file(config: SweepConfig) -> dict[str, Setting]:
    """The settings, and the method, that a file sets to something else than their defaults."""
    defaults: dict[str, Setting] = {}
    for method in reversed(config.methods()):  # where several read one, the baseline's method decides
        defaults |= default_settings(config.task, method)
    found = {name: value for name, value in config.settings.items() if value != defaults.get(name)}
    return found if config.method == METHOD.default else {"method": config.method, **found}


def parameters(config: SweepConfig, point: Mapping[str, Setting]) -> dict[str, Setting]:
    """A trial's parameters: its point, and what the file sets of all that the trial's method reads. A setting at its
    default is none, and neither is one that only other trials search."""
    method = str(point.get("method", config.method))
    read = {"method", *(name for name, field in FIELDS.items() if not field.methods or method in field.methods)}
    given = {name: v for name, v in set_by_file(config).items() if name in read and name not in config.space.dimensions}
    return {**given, **point}


def trial_name(number: int, planned: int, point: Mapping[str, Setting], *, is_baseline: bool) -> str:
    """The name of a trial's run, which sorts and reads: `#007 lr=4.8e-04 r=16 bs=16`."""
    settings = [f"{_SHORT.get(name, name)}={_value(name, value)}" for name, value in point.items()]
    return " ".join([_number(number, planned), *(["baseline"] if is_baseline else []), *settings])[:_LONGEST]


def repeat_name(trial: int, planned: int, repeat: int) -> str:
    """The name of the run of a finalist's repeat."""
    return f"{_number(trial, planned)} seed {repeat}"


def _number(number: int, planned: int) -> str:
    """As many digits as the sweep's last number has, so that names sort as numbers do."""
    return f"#{number:0{max(3, len(str(planned - 1)))}d}"


def _value(name: str, value: Setting) -> str:
    if isinstance(value, float):  # learning rates span magnitudes: all in one form
        return f"{value:.1e}" if name == "learning_rate" or 0 < abs(value) < 0.001 else f"{value:.3g}"
    return str(value)[:_LONGEST_VALUE]
