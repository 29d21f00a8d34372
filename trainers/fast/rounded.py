"""Frozen linear layers in bf16: weights rounded once, products of bf16, and float32 for everything between them.

Autocast rounds every weight in every call, and takes attention, dropout and LoRA's layers off the paths that are made
for float32. Here only products with frozen weights are of bf16, with LoRA's thin ones beside them: what comes in is
rounded, what comes out is float32 again. LoRA's own weights and their updates stay float32. The base keeps its weights
in float32 too: methods change them, and a merge needs all of their bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, cast

import torch

from trainers.fast.folded_lora import FoldedLora
from trainers.fast.shortcut import Unknown

BF16 = torch.bfloat16
LAYER_TOLERANCE = 2.0**-6
"""Largest difference of a layer's values and gradients, as a share of their length: bf16 rounds by up to 2**-9, a
product's factors and its result."""


class FrozenInBf16:
    """The shortcut: every frozen plain linear layer multiplies in bf16, and so do plain LoRA layers over one."""

    def fits(self, model: Any) -> str | None:
        """Of a model whose LoRA layers are folded: other methods have their own products, which autocast rounds."""
        return None if any(_of_type(model, FoldedLora)) else "there is no folded LoRA layer"

    def check(self) -> None:
        """Values and gradients on small tensors. Raises `Unknown` where rounding does not explain a difference."""
        generator = torch.Generator().manual_seed(0)

        def drawn(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator)

        weight, bias, scaling, cotangent = drawn(48, 32), drawn(48), 2.0, drawn(20, 48)
        x, down, up = (part.requires_grad_() for part in (drawn(20, 32), drawn(4, 32), drawn(48, 4)))
        frozen, adapted = x @ weight.T + bias, x @ weight.T + bias + scaling * (x @ down.T @ up.T)
        rounded = weight.to(BF16)
        _compare(_Rounded.apply(x, rounded, bias), frozen, (x,), cotangent)
        _compare(_RoundedLora.apply(x, rounded, bias, down, up, scaling), adapted, (x, down, up), cotangent)

    def apply(self, model: Any, undo: ExitStack) -> None:
        """Give every such layer its weight in bf16, and another way to compute."""
        undo.callback(unround, model)
        round_frozen(model)


def _compare(
    ours: torch.Tensor, plain: torch.Tensor, inputs: tuple[torch.Tensor, ...], cotangent: torch.Tensor
) -> None:  # fmt: skip
    """Raises `Unknown` where values or gradients are further apart than rounding explains."""
    results = ([y.detach(), *torch.autograd.grad(y, inputs, cotangent)] for y in (ours, plain))
    for one, other in zip(*results, strict=True):
        if not float((one - other).norm()) <= LAYER_TOLERANCE * float(other.norm()):
            raise Unknown("a layer in bf16, or its gradient, differs by more than rounding")


def keep_rounded(model: torch.nn.Module) -> None:
    """Round the frozen weights of a base model, for all processes that are forked from this one."""
    for layer in _of_type(model, torch.nn.Linear):
        if not _is_trained(layer):
            layer.rounded = layer.weight.detach().to(BF16)


def round_frozen(model: torch.nn.Module) -> None:
    """Let every frozen plain linear layer multiply in bf16, in place."""
    for layer in _of_type(model, torch.nn.Linear):
        if not _is_trained(layer):
            rounded = layer.weight.detach().to(BF16)
            kept = getattr(layer, "rounded", None)
            # A method may have changed the weight since (PiSSA does).
            layer.rounded = kept if kept is not None and torch.equal(kept, rounded) else rounded
            layer.__class__ = RoundedLinear
    for layer in _of_type(model, FoldedLora):
        if type(layer.base_layer) is RoundedLinear:
            layer.__class__ = RoundedLora


def unround(model: torch.nn.Module) -> None:
    """The inverse of `round_frozen`."""
    for layer in _of_type(model, RoundedLora):
        layer.__class__ = FoldedLora
    for layer in _of_type(model, RoundedLinear):
        layer.__class__ = torch.nn.Linear


def _of_type(model: torch.nn.Module, kind: type) -> Iterator[Any]:
    """The modules of just this class, not of one below it."""
    return (module for module in model.modules() if type(module) is kind)


def _is_trained(layer: torch.nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in layer.parameters(recurse=False))


class RoundedLinear(torch.nn.Linear):  # type: ignore[misc]  # torch leaves it untyped
    """A frozen layer that multiplies in bf16."""

    rounded: torch.Tensor

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out], both float32."""
        return cast("torch.Tensor", _Rounded.apply(input, self.rounded, self.bias))


class RoundedLora(FoldedLora):
    """A LoRA layer over a `RoundedLinear`. The adapter is not folded into the weight: bf16 would swallow it."""

    def _of_one_adapter(self, x: torch.Tensor, name: str) -> torch.Tensor:
        base, down, up = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
        return cast("torch.Tensor", _RoundedLora.apply(x, base.rounded, base.bias, down, up, self.scaling[name]))


class _Rounded(torch.autograd.Function):  # type: ignore[misc]  # torch leaves it untyped
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return _in_float32(_flat(x) @ weight.T, x, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        return _in_float32(_flat(gradients[0]) @ weight, gradients[0]), None, None


class _RoundedLora(torch.autograd.Function):  # type: ignore[misc]  # torch leaves it untyped
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, down: torch.Tensor,
        up: torch.Tensor, scaling: float,
    ) -> torch.Tensor:  # fmt: skip
        ctx.scaling = scaling
        flat = _flat(x)
        narrow = flat @ down.to(BF16).T
        out = (flat @ weight.T).addmm_(narrow, up.to(BF16).T, alpha=scaling)
        ctx.save_for_backward(flat, weight, down, up, narrow)
        return _in_float32(out, x, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        flat_x, weight, down, up, narrow = ctx.saved_tensors
        flat = _flat(gradients[0])
        behind_up = flat @ up.to(BF16)
        for_up = (flat.T @ narrow).float().mul_(ctx.scaling)
        for_down = (behind_up.T @ flat_x).float().mul_(ctx.scaling)
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = _in_float32((flat @ weight).addmm_(behind_up, down.to(BF16), alpha=ctx.scaling), gradients[0])
        return for_x, None, None, for_down, for_up, None


def _flat(wide: torch.Tensor) -> torch.Tensor:
    """[..., width] to [n, width], in bf16, and to a few different n: rows of zeros follow, which change no product."""
    flat = wide.reshape(-1, wide.shape[-1])
    count = len(flat)
    if (most := rounded_up(count)) == count:
        return flat.to(BF16)
    padded = torch.empty(most, flat.shape[1], dtype=BF16, device=flat.device)
    padded[:count].copy_(flat)
    padded[count:].zero_()
    return padded


def rounded_up(count: int) -> int:
    """`count` or up to a sixteenth more: there are 16 such numbers between a power of two and the next, all multiples
    of 16.

    oneDNN compiles each shape of a product the first time that it meets it, which takes longer than the product itself
    (1.2 ms, then 0.1), and without padding nearly every batch has another number of tokens.
    """
    step = max(16, (1 << count.bit_length()) // 32)
    return -(-count // step) * step


def _in_float32(flat: torch.Tensor, like: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """[n, width] in bf16 to float32, with the leading dimensions of `like`; the bias is not rounded."""
    out = flat[: like.numel() // like.shape[-1]].float()
    return (out if bias is None else out.add_(bias)).view(*like.shape[:-1], -1)
