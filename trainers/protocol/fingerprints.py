"""What a trial's fingerprint holds. Standard library only.

Fields and settings of the first records are always in it. One that came later is left out where it is at its default: a
trial then trains as it did before that field existed, so it keeps the fingerprint that it had. For the same reason the
default of a later one must not change: give a changed one another name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from trainers.protocol.settings import CHANGE_NO_RESULT, FIELDS, Setting

FIRST_SETTINGS = frozenset({
    "learning_rate", "batch_size", "max_epochs", "max_examples", "max_steps", "evaluations", "eval_steps",
    "early_stopping.patience", "early_stopping.min_delta", "warmup_ratio", "lr_scheduler_type", "warmup_steps", "optim",
    "weight_decay", "max_grad_norm", "loss", "focal_gamma", "contrastive_margin", "label_smoothing_factor",
    "neftune_noise_alpha", "max_length", "precision", "lora_r", "lora_alpha", "alpha_ratio", "lora_dropout",
    "target_modules", "rank_pattern", "init_lora_weights", "modules_to_save", "quantization", "adapter_size",
    "num_virtual_tokens",
})  # fmt: skip
FIRST_FIELDS: Mapping[str, frozenset[str]] = {
    "TrialSpec": frozenset({
        "workload", "method", "settings", "metric", "direction", "max_examples", "full_examples", "seed", "inputs",
    }),
    "Workload": frozenset({"task", "model", "data", "max_length", "precision", "metrics", "generation"}),
}  # fmt: skip


def counted_settings(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """The settings that decide a result, without later ones at their default."""
    return {
        name: value
        for name, value in settings.items()
        if name not in CHANGE_NO_RESULT
        and (name in FIRST_SETTINGS or name not in FIELDS or value != FIELDS[name].default)
    }


def counted_fields(cls: type, content: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a dataclass as in its records, without later ones at their default."""
    defaults = {f.metadata.get("was", f.name): f.default for f in dataclasses.fields(cls)}
    first = FIRST_FIELDS[cls.__name__]
    return {name: value for name, value in content.items() if name in first or value != defaults[name]}
