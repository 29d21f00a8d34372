"""Numbers in a unit of their own: a head learns (number - mean) / std, and is asked and answers in the numbers' unit.

The scale stands in the model's config, so that whoever has the model knows what its output means.
"""

from __future__ import annotations

from typing import Any

import torch

from trainers.protocol.codec import to_json
from trainers.protocol.messages import Scale

AS_GIVEN = Scale(0.0, 1.0)
"""Of a head that answers in the numbers' own unit, as that of a checkpoint does."""


def scale_of(model: Any) -> Scale:
    """The unit that a model's output has."""
    held = getattr(model.config, "target_scale", None)
    return Scale(**held) if held else AS_GIVEN


def set_scale(model: Any, scale: Scale) -> None:
    """Say what a model's output means, without changing it."""
    model.config.target_scale = to_json(scale)  # plain values: configs are written as JSON


def convert(model: Any, layer: torch.nn.Module, held: Scale, wanted: Scale) -> None:
    """Change the output layer from the unit `held` to `wanted`, so that every answer stays what it is.

    Without a bias the mean stays that of `held`: a product alone cannot move it.
    """
    bias = getattr(layer, "bias", None)
    unit = wanted if bias is not None else Scale(held.mean, wanted.std)
    _affine(layer, held.std / unit.std, (held.mean - unit.mean) / unit.std)
    set_scale(model, unit)


def fold(model: Any, layer: torch.nn.Module) -> None:
    """Put a model's scale into its output layer, with a bias where there was none: it answers in the numbers' unit."""
    scale = scale_of(model)
    if scale.mean and getattr(layer, "bias", None) is None:
        weight: torch.Tensor = layer.weight
        layer.bias = torch.nn.Parameter(torch.zeros(len(weight), dtype=weight.dtype))
    _affine(layer, scale.std, scale.mean)
    set_scale(model, AS_GIVEN)


def _affine(layer: torch.nn.Module, factor: float, offset: float) -> None:
    """Make a layer answer `factor` times what it does, plus `offset`; in double precision, rounded once."""
    with torch.no_grad():
        for parameter in layer.parameters(recurse=False):
            changed = parameter.double() * factor
            parameter.copy_(changed + offset if parameter.dim() == 1 else changed)
