"""LoRA's layers in fewer passes: folded into the weight for the length of one product, and with thin products that are
laid out for speed.

x (W + s B A)^T is the same function as x W^T + s (x A^T) B^T, with the same gradients, without the thin products, the
scaling and the sum. The folded weight is thrown away at once, so the base stays shared with the host. What it buys is
in tests/bench/README.md.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from peft.tuners.lora import Linear as LoraLinear

WIDE_FIRST = torch.backends.cpu.get_cpu_capability() == "AVX512"
"""Which way MKL has [n, width] [width, rank] sooner: as it stands, up to twice as fast with several threads; with AVX2
from its transposed factors, [rank, width] [width, n], four times as fast."""


def fold_adapters(model: torch.nn.Module) -> None:
    """Let every plain LoRA layer of a model on a CPU fold its adapter, in place."""
    for module in model.modules():
        if type(module) is LoraLinear and not module.lora_variant and type(module.base_layer) is torch.nn.Linear:
            module.__class__ = FoldedLora


class FoldedLora(LoraLinear):  # type: ignore[misc]  # PEFT has no types
    """PEFT's layer, with another way to compute it where that is the same function and is faster."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if args or kwargs or not self._folds(x):
            return cast("torch.Tensor", super().forward(x, *args, **kwargs))
        (name,) = self.active_adapters
        base = self.base_layer
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        folded = _Folded.apply(x, base.weight, base.bias, down, up, self.scaling[name])
        return cast("torch.Tensor", folded)

    def _folds(self, x: torch.Tensor) -> bool:
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return False
        name, weight = self.active_adapters[0], self.base_layer.weight
        dropout = self.lora_dropout[name]
        return (
            x.device.type == "cpu"
            and x.dtype == weight.dtype == self.lora_A[name].weight.dtype
            and not torch.is_autocast_enabled("cpu")
            and not weight.requires_grad
            and not (self.training and isinstance(dropout, torch.nn.Dropout))
            and self.lora_B[name].bias is None
        )


class _Folded(torch.autograd.Function):  # type: ignore[misc]  # torch leaves it untyped
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, down: torch.Tensor,
        up: torch.Tensor, scaling: float,
    ) -> torch.Tensor:  # fmt: skip
        ctx.scaling = scaling
        flat = x.reshape(-1, x.shape[-1])
        # As many multiplications as the thin products of half as many vectors, but the whole weight is written anew.
        if len(flat) * sum(weight.shape) > 2 * weight.numel():
            narrow, out = None, flat @ torch.addmm(weight, up, down, alpha=scaling).T
        else:
            narrow = _thin(flat, down.T)
            out = (flat @ weight.T).addmm_(narrow, up.T, alpha=scaling)
        ctx.save_for_backward(x, weight, down, up, narrow)
        # The bias last: torch would fill the result with it first, and have the product read it again.
        return (out if bias is None else out.add_(bias)).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x, weight, down, up, narrow = ctx.saved_tensors
        flat_x, flat = x.reshape(-1, x.shape[-1]), gradients[0].reshape(-1, weight.shape[0])
        behind_up = _thin(flat, up)
        for_up = _thin(flat.T, _thin(flat_x, down.T) if narrow is None else narrow, ctx.scaling)
        for_down = _product(behind_up.T, flat_x, ctx.scaling)
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = (flat @ weight).addmm_(behind_up, down, alpha=ctx.scaling).view_as(x)
        return for_x, None, None, for_down, for_up, None


def _thin(wide: torch.Tensor, narrow: torch.Tensor, scaling: float = 1.0) -> torch.Tensor:
    """scaling [n, width] [width, rank], in the way that is sooner here."""
    if WIDE_FIRST:
        return _product(wide, narrow, scaling)
    return _product(narrow.T, wide.T, scaling).T


def _product(left: torch.Tensor, right: torch.Tensor, scaling: float) -> torch.Tensor:
    """In one pass: a product's own factor costs nothing."""
    return left.new_empty(left.shape[0], right.shape[1]).addmm_(left, right, beta=0, alpha=scaling)
