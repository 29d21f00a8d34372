"""LoRA's layers in fewer passes: folded into the weight for the length of one product, and with thin products that are
laid out for speed.

x (W + s B A)^T is the same function as x W^T + s (x A^T) B^T, with the same gradients, without the thin products, the
scaling and the sum. The folded weight is thrown away at once, so the base stays shared with the host. What it buys is
in tests/bench/README.md.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as LoraLinear


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
        ctx.save_for_backward(x, weight, down, up)
        ctx.scaling = scaling
        flat = x.reshape(-1, x.shape[-1])
        # Folding costs as many multiplications as the thin products of this many vectors.
        if len(flat) * sum(weight.shape) > weight.numel():
            return F.linear(x, torch.addmm(weight, up, down, alpha=scaling), bias)
        return F.linear(flat, weight, bias).addmm_((down @ flat.T).T, up.T, alpha=scaling).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x, weight, down, up = ctx.saved_tensors
        flat_x, flat = x.reshape(-1, x.shape[-1]), gradients[0].reshape(-1, weight.shape[0])
        # The thin side first, [rank, vectors]: four times as fast as [vectors, rank] in MKL.
        behind_up = up.T @ flat.T
        for_up = _scaled_product(down @ flat_x.T, flat, ctx.scaling).T
        for_down = _scaled_product(behind_up, flat_x, ctx.scaling)
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = (flat @ weight).addmm_(behind_up.T, down, alpha=ctx.scaling).view_as(x)
        return for_x, None, None, for_down, for_up, None


def _scaled_product(left: torch.Tensor, right: torch.Tensor, scaling: float) -> torch.Tensor:
    """In one pass: a product's own factor costs nothing."""
    return left.new_empty(left.shape[0], right.shape[1]).addmm_(left, right, beta=0, alpha=scaling)
