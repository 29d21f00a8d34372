"""What an adapter holds beside its base: two thin matrices for each layer, and layers that were trained in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper

from trainers.data.sources import DataProblem
from trainers.model.methods.targets import not_by_row

_WRAPPED = "base_model.model."
_NAME = "default"
"""PEFT's name of an adapter that nobody has named."""

Parts = Mapping[str, Mapping[str, torch.Tensor]]
"""Full name of a layer -> its tensors by name, float32 on the CPU."""


@dataclass(frozen=True)
class Beside:
    """All that an adapter has learned, by the full names of the base's layers."""

    thin: Parts
    """`a`, [in, rank], and `b`, [rank, out], with the scale in it: a layer's output is its own and x a b."""
    full: Parts
    """What takes the place of a layer: `weight` [in, out] and `bias` [out] of a linear one, and `weight` [size] and
    `bias` [size] of a norm; without a bias in the layer it is 0."""


def thin_parts(model: torch.nn.Module) -> Parts:
    """The thin matrices of PEFT's model."""
    found = {}
    with torch.no_grad():
        for name, layer in model.named_modules():
            if isinstance(layer, LoraLayer):
                a, b = layer.lora_A[_NAME].weight.T, layer.lora_B[_NAME].weight.T * layer.scaling[_NAME]
                found[name.removeprefix(_WRAPPED)] = {"a": a.contiguous().clone(), "b": b.contiguous().clone()}
    return found


def full_modules(model: torch.nn.Module) -> list[str]:
    """Full names of the modules with parameters, within those of PEFT's model that were trained in full."""
    found = []
    for name, wrapper in model.named_modules():
        if isinstance(wrapper, ModulesToSaveWrapper):
            for inner, module in wrapper.modules_to_save[_NAME].named_modules():
                if next(module.parameters(recurse=False), None) is not None:
                    found.append(f"{name}.{inner}".rstrip(".").removeprefix(_WRAPPED))
    return found


def full_parts(model: torch.nn.Module, names: Sequence[str]) -> Parts:
    """What these layers of a plain model hold. Raises `DataProblem` with every one that no graph can choose by row."""
    if wrong := not_by_row(model, names):
        raise DataProblem(wrong)
    with torch.no_grad():
        return {name: _full_part(model.get_submodule(name)) for name in names}


def _full_part(layer: Any) -> Mapping[str, torch.Tensor]:
    weight = layer.weight.T if isinstance(layer, torch.nn.Linear) else layer.weight
    bias = getattr(layer, "bias", None)
    return {
        "weight": weight.contiguous().clone(),
        "bias": torch.zeros(weight.shape[-1]) if bias is None else bias.clone(),
    }
