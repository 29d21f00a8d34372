"""Units of values: a head learns (value - mean) / std, while data and predictions are in the data's unit.

The scale is in the model's config, so that everything that loads the model knows the unit of its output.
"""

from __future__ import annotations

from typing import Any

import torch

from trainers.protocol.codec import to_json
from trainers.protocol.events import Scale

AS_GIVEN = Scale(0.0, 1.0)
"""The scale of a head that predicts in the data's unit, as a checkpoint's head does."""


def scale_of(model: Any) -> Scale:
    """The unit of a model's output."""
    held = getattr(model.config, "target_scale", None)
    return Scale(**held) if held else AS_GIVEN


def set_scale(model: Any, scale: Scale) -> None:
    """Set the unit of a model's output in its config, without changing the output."""
    model.config.target_scale = to_json(scale)  # plain values: configs are written as JSON


def convert(model: Any, layer: torch.nn.Module, held: Scale, wanted: Scale) -> None:
    """Convert the output layer from the unit `held` to `wanted`, so that every prediction stays the same.

    A layer without a bias keeps the mean of `held`, because it cannot shift its output.
    """
    bias = getattr(layer, "bias", None)
    unit = wanted if bias is not None else Scale(held.mean, wanted.std)
    _affine(layer, held.std / unit.std, (held.mean - unit.mean) / unit.std)
    set_scale(model, unit)


def fold(model: Any, layer: torch.nn.Module) -> None:
    """Fold a model's scale into its output layer, which gets a bias if needed: it then predicts in the data's unit."""
    scale = scale_of(model)
    if scale.mean and getattr(layer, "bias", None) is None:
        weight: torch.Tensor = layer.weight
        layer.bias = torch.nn.Parameter(torch.zeros(len(weight), dtype=weight.dtype))
    _affine(layer, scale.std, scale.mean)
    set_scale(model, AS_GIVEN)


def _affine(layer: torch.nn.Module, factor: float, offset: float) -> None:
    """Multiply a layer's output by `factor` and add `offset`, in double precision and rounded once."""
    with torch.no_grad():
        for parameter in layer.parameters(recurse=False):
            changed = parameter.double() * factor
            parameter.copy_(changed + offset if parameter.dim() == 1 else changed)
