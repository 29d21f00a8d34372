"""Heads that compute in float32, also where the rest of the model computes in lower precision.

bf16 has 8 bits of precision: for 100 different texts a head in bf16 gives only about twenty different values, and tied
values cannot be ranked.
"""

from __future__ import annotations

from typing import Any

import torch


class _InFloat32(torch.nn.Module):
    """A base class that is put before a module's class; unlike a hook it also works in copies of the module."""

    def forward(self, *given: Any, **named: Any) -> Any:
        device = next(self.parameters()).device.type
        if not torch.is_autocast_enabled(device):
            return super().forward(*given, **named)
        with torch.autocast(device, enabled=False):
            cast = {name: _float(value) for name, value in named.items()}
            return super().forward(*map(_float, given), **cast)


def in_float32(module: torch.nn.Module) -> None:
    """Make a module compute in float32 under autocast, in place."""
    if not isinstance(module, _InFloat32):
        kind = type(module)
        module.__class__ = type(kind.__name__, (_InFloat32, kind), {"__module__": kind.__module__})


def computes_in_float32(module: torch.nn.Module) -> bool:
    """Whether a module computes in float32 under autocast too."""
    return isinstance(module, _InFloat32)


def _float(value: Any) -> Any:
    is_tensor = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.float() if is_tensor else value
