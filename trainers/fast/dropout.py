"""Dropout whose random bits are cheap on a CPU.

torch draws one Bernoulli number per element there: 18 % of a LoRA step of MiniLM (AVX2, one thread, 430 tokens, a
dropout in every adapted layer). Here one 64-bit draw serves four elements, so a probability is rounded to 1/65536;
[215, 384] elements take 0.24 ms instead of 0.90 (AVX-512, one thread). On a GPU torch's own kernel is used.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch

from trainers.fast.shortcut import Unknown

_LEVELS = 1 << 16


class CheapDropout(torch.nn.Dropout):
    """`torch.nn.Dropout` with the same expectation, from torch's own generator: seeds and checkpoints hold."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Any shape to the same; torch's own way on a GPU and for whole numbers."""
        if not self.training or not 0 < self.p < 1 or input.device.type != "cpu" or not input.is_floating_point():
            return super().forward(input)
        return input * dropout_factors(input.shape, self.p, input.dtype)


def dropout_factors(shape: torch.Size, probability: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """0 with `probability`, else what keeps the expectation."""
    return keep_mask(shape, probability).to(dtype).mul_(_LEVELS / (_LEVELS - _dropped_levels(probability)))


def keep_mask(shape: torch.Size, probability: float) -> torch.Tensor:
    """A mask in int16: 1 where an element stays, with probability 1 - `probability`, else 0."""
    count = shape.numel()
    bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    drawn = bits.view(torch.int16)[:count].view(shape)
    lowest_kept = _dropped_levels(probability) - _LEVELS // 2
    # To one of two neighbours, not compared: torch makes and casts booleans one by one, a third of dropout's time.
    return drawn.clamp_(lowest_kept - 1, lowest_kept).sub_(lowest_kept - 1)


class DropoutMadeCheap:
    """The shortcut: torch's own dropout modules, and no others, draw cheaply."""

    def fits(self, model: Any) -> str | None:
        """Of any model; one without dropout has nothing to draw."""
        return None

    def check(self) -> None:
        """Raises `Unknown` where draws are wrong, or where anything is changed that is not to be dropped."""
        check_draws()
        x = torch.ones(100)
        if not (torch.equal(CheapDropout(0.0)(x), x) and torch.equal(CheapDropout(0.5).eval()(x), x)):
            raise Unknown("it changes what is not to be dropped")

    def apply(self, model: Any, undo: ExitStack) -> None:
        """Make every dropout module cheap."""
        undo.callback(make_dropout_plain, model)
        make_dropout_cheap(model)


def check_draws() -> None:
    """Rate, scale and gradient of one draw. Raises `Unknown` where one is wrong."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        probability, x = 0.25, torch.ones(1 << 14, requires_grad=True)
        dropped = CheapDropout(probability)(x)
        (gradient,) = torch.autograd.grad(dropped.sum(), x)
    kept = dropped[dropped != 0]
    rate, spread = 1 - len(kept) / len(x), (probability * (1 - probability) / len(x)) ** 0.5
    if abs(rate - probability) > 5 * spread:
        raise Unknown(f"it drops {rate:.3f} of all elements, {probability} expected")
    if not torch.allclose(kept, torch.tensor(1 / (1 - probability)), rtol=1e-4):
        raise Unknown("it scales what it keeps by another factor than 1 / (1 - probability)")
    if not torch.equal(gradient, dropped):
        raise Unknown("its gradient is not dropped as its input is")


def make_dropout_cheap(model: torch.nn.Module) -> None:
    """Let every dropout module of a model draw cheaply, in place."""
    for module in model.modules():
        if type(module) is torch.nn.Dropout:
            module.__class__ = CheapDropout


def make_dropout_plain(model: torch.nn.Module) -> None:
    """The inverse of `make_dropout_cheap`."""
    for module in model.modules():
        if type(module) is CheapDropout:
            module.__class__ = torch.nn.Dropout


def _dropped_levels(probability: float) -> int:
    """Of the 65536 values of an element's 16 bits, how many drop it: never none, never all."""
    return min(max(round(probability * _LEVELS), 1), _LEVELS - 1)
