"""Heads that compute in float32 whatever the rest of a model computes in.

bf16 has 8 bits: of 100 different texts a head in bf16 gives some twenty different numbers, and ties have no rank.
"""

from __future__ import annotations

from typing import Any

import torch


class _InFloat32(torch.nn.Module):
    """What is put before a module's own class. A class and no hook, so that copies of the module behave as it does."""

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


def _float(value: Any) -> Any:
    is_tensor = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.float() if is_tensor else value
