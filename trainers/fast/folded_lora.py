"""LoRA's layers in fewer passes: folded into the weight for the length of one product, and with thin products that are
laid out for speed.

x (W + s B A)^T is the same function as x W^T + s (x A^T) B^T, with the same gradients, without the thin products, the
scaling and the sum. The folded weight is thrown away at once, so the base stays shared with the host. What it buys is
in tests/bench/training.md.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, cast

import torch
from peft.tuners.lora import Linear as LoraLinear

from trainers.fast.shortcut import Unknown

WIDE_FIRST = torch.backends.cpu.get_cpu_capability() == "AVX512"
"""Which way MKL has [n, width] [width, rank] sooner: as it stands, up to twice as fast with several threads; with AVX2
from its transposed factors, [rank, width] [width, n], four times as fast."""

KNOWN_ATTRIBUTES = {
    "_active_adapter", "_caches", "_disable_adapters", "adapter_layer_names", "cast_input_dtype_enabled",
    "ephemeral_gpu_offload", "fan_in_fan_out", "in_features", "is_target_conv_1d_layer", "kwargs", "lora_alpha",
    "lora_bias", "lora_variant", "merged_adapters", "out_features", "r", "scaling", "use_dora", "use_rslora",
}  # fmt: skip
KNOWN_PARTS = {
    "base_layer", "lora_A", "lora_B", "lora_dropout", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector",
}  # fmt: skip
"""What PEFT's layer holds, and its modules. With another one it may compute something else."""


class AdaptersFolded:
    """The shortcut: plain LoRA layers over plain linear layers are computed in fewer passes."""

    def fits(self, model: Any) -> str | None:
        """Of a model with such layers. Raises `Unknown` where PEFT's layer holds anything else than it did."""
        layers = _plain_layers(model)
        if not layers:
            return "there is no plain LoRA layer over a plain linear one"
        plain = vars(torch.nn.Identity())
        for layer in layers:
            held = (set(vars(layer)) - set(plain) - KNOWN_ATTRIBUTES) | (set(layer._modules) ^ KNOWN_PARTS)
            if held or layer._parameters or layer._buffers:
                name = next(iter(sorted(held) or [*layer._parameters, *layer._buffers]))
                raise Unknown(f"PEFT's LoRA layer has changed: {name} is new in it or gone")
        return None

    def check(self) -> None:
        """Both ways to compute a layer, forward and backward, in doubles. Raises `Unknown` where they differ."""
        generator = torch.Generator().manual_seed(0)

        def drawn(*shape: int) -> torch.Tensor:
            return torch.randn(shape, dtype=torch.float64, generator=generator)

        weight, bias, scaling = drawn(6, 4), drawn(6), 2.0
        for vectors in (2, 20):  # thin products; the weight folded
            x, down, up = (part.requires_grad_() for part in (drawn(vectors, 4), drawn(2, 4), drawn(6, 2)))
            folded = _Folded.apply(x, weight, bias, down, up, scaling)
            plain = x @ weight.T + bias + scaling * (x @ down.T @ up.T)
            cotangent = drawn(vectors, 6)
            ours, theirs = (torch.autograd.grad(y, (x, down, up), cotangent) for y in (folded, plain))
            pairs = zip((folded, *ours), (plain, *theirs), strict=True)
            if not all(torch.allclose(one, other) for one, other in pairs):
                raise Unknown("a folded layer, or its gradient, is not that of a plain one")

    def apply(self, model: Any, undo: ExitStack) -> None:
        """Let every plain LoRA layer fold its adapter."""
        undo.callback(unfold_adapters, model)
        fold_adapters(model)


def fold_adapters(model: torch.nn.Module) -> None:
    """Let every plain LoRA layer of a model on a CPU fold its adapter, in place."""
    for layer in _plain_layers(model):
        layer.__class__ = FoldedLora


def unfold_adapters(model: torch.nn.Module) -> None:
    """The inverse of `fold_adapters`."""
    for module in model.modules():
        if type(module) is FoldedLora:
            module.__class__ = LoraLinear


def _plain_layers(model: torch.nn.Module) -> list[Any]:
    return [
        module
        for module in model.modules()
        if type(module) is LoraLinear and not module.lora_variant and type(module.base_layer) is torch.nn.Linear
    ]


class FoldedLora(LoraLinear):  # type: ignore[misc]  # PEFT has no types
    """PEFT's layer, with another way to compute it where that is the same function and is faster."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """[..., in] to [..., out]; PEFT's own way for anything but one plain adapter that is trained."""
        if args or kwargs or not self._folds(x):
            return cast("torch.Tensor", super().forward(x, *args, **kwargs))
        (name,) = self.active_adapters
        return self._of_one_adapter(x, name)

    def _of_one_adapter(self, x: torch.Tensor, name: str) -> torch.Tensor:
        base, down, up = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
        return cast("torch.Tensor", _Folded.apply(x, base.weight, base.bias, down, up, self.scaling[name]))

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
            and not (self.base_layer.bias is not None and self.base_layer.bias.requires_grad)
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
