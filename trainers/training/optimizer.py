"""Optimizers by the names of transformers' `TrainingArguments`, and their state as tensors and plain numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from trainers.lazy_bitsandbytes import bitsandbytes
from trainers.protocol.trial_spec import TrialSpec

OF_BITSANDBYTES = {
    "adamw_bnb_8bit": "AdamW8bit", "paged_adamw_8bit": "PagedAdamW8bit", "lion_32bit": "Lion", "lion_8bit": "Lion8bit",
}  # fmt: skip


def make_optimizer(spec: TrialSpec, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that `optim` names. Raises `ValueError` for a paged one without a GPU: it pages between the two."""
    name = str(spec.settings["optim"])
    given = {
        "lr": float(spec.settings["learning_rate"] or 0),
        "weight_decay": float(spec.settings["weight_decay"] or 0),
    }
    if name == "adamw_torch":
        return torch.optim.AdamW(parameters, **given, fused=True)
    if name == "adafactor":
        from transformers.optimization import Adafactor  # late: inspection imports this file and trains nothing

        # In torch's own, steps follow the size of the weights: LoRA's B, which begins at zero, would hardly move.
        return Adafactor(parameters, **given, scale_parameter=False, relative_step=False)
    if name.startswith("paged") and spec.device == "cpu":
        raise ValueError(f"optim: {name} needs a GPU; without one: adamw_bnb_8bit")
    optimizer: torch.optim.Optimizer = getattr(bitsandbytes().optim, OF_BITSANDBYTES[name])(parameters, **given)
    return optimizer


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """An optimizer's tensors and plain numbers by name; its settings follow from the trial's spec."""
    leaves = {f"optimizer/{i}/{n}": v for i, s in optimizer.state_dict()["state"].items() for n, v in _leaves(s)}
    tensors = {name: value for name, value in leaves.items() if isinstance(value, torch.Tensor)}
    return tensors, {name: value for name, value in leaves.items() if name not in tensors}


def restore_optimizer(optimizer: torch.optim.Optimizer, leaves: Mapping[str, Any]) -> None:
    """The inverse of `optimizer_state`, both parts together, on an optimizer made of the same parameters."""
    state: dict[int, Any] = {}
    for name, value in leaves.items():
        first, *path = name.split("/")
        if first == "optimizer":
            owner = state.setdefault(int(path[0]), {})
            for part in path[1:-1]:
                owner = owner.setdefault(part, {})
            owner[path[-1]] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """bitsandbytes keeps its moments one level deeper than torch."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value
