"""Tries shortcuts on a model before trials use them: loss and gradients must be those of the plain way.

A few rows, forward and backward, in float32 and without dropout: once the plain way and once with all shortcuts. Then
once more as in training, with dropout and in the type that trials compute in, where nothing may be raised and no number
lost. Only where that fails, they are tried one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from trainers.fast.enter import ROUNDED, SHORTCUTS, put_on, shortcut_of
from trainers.fast.shortcut import Unknown, reason

Loss = Callable[[Any], torch.Tensor]
"""A model's loss on a few rows of different lengths."""

TOLERANCE = 1e-4
"""Largest difference of the loss, and of each gradient as a share of its length (or of `SMALL` of all gradients', where
that is more). In float32 sound shortcuts are off by 2e-6 (MiniLM, SmolLM2); in bfloat16 rounding alone is 4e-2, which
would hide what is wrong."""
ROUNDED_TOLERANCE = 0.2
"""The same for the loss, and for all gradients in one line, where frozen layers are rounded to bf16: MiniLM is off by
0.003, SmolLM2 by 0.085 (under autocast by 0.066)."""
SMALL = 0.01
"""A gradient that is nothing but rounding (that of a key's bias, say) may differ by all of itself."""
NOISE = 0.02
"""Spread of what stands in for parameters that begin at zero: LoRA's would hide a wrong gradient behind them."""


@dataclass(frozen=True)
class _Outcome:
    loss: torch.Tensor
    gradients: dict[str, torch.Tensor]
    """Of trainable parameters by name, and of what the embeddings gave, by number."""

    @property
    def length(self) -> float:
        """Of all gradients in one line."""
        return math.sqrt(sum(float(gradient.double().pow(2).sum()) for gradient in self.gradients.values()))


def refused_by(model: Any, exact: Loss, trained: Loss, names: Sequence[str] = tuple(SHORTCUTS)) -> dict[str, str]:
    """Which of the shortcuts `names` are not to be used for a model, and why, without those that do not fit its kind.

    The loss is `exact` in float32; `trained` is the same as trials compute it. The model is left as it was, and so are
    torch's random numbers, those of its GPU too. Raises only what is no fault of a shortcut: that memory ran out, or
    that the process is to end.
    """
    gpus = [device for device in {parameter.device for parameter in model.parameters()} if device.type == "cuda"]
    with torch.random.fork_rng(devices=gpus), _as_it_was(model), _stirred(model):
        plain = _outcome(model, exact)
        if _why_not(model, list(names), exact, trained, plain) is None:
            return {}
        good: list[str] = []
        refused: dict[str, str] = {}
        for name in names:
            why = _why_not(model, [*good, name], exact, trained, plain)
            if why is None:
                good.append(name)
            else:
                refused[name] = why
        return refused


def why_not_rounded(model: Any, exact: Loss, refused: Mapping[str, str]) -> str | None:
    """Why frozen layers are not to compute in bf16, beside the shortcuts that are not `refused`; None where they may.

    The model and torch's random numbers stay as they were; it raises as `refused_by` does.
    """
    with torch.random.fork_rng(devices=[]), _as_it_was(model), _stirred(model):
        try:
            plain = _outcome(model, exact)
            with ExitStack() as undo:
                shortcut_of(ROUNDED).check()
                for name in (*SHORTCUTS, ROUNDED):
                    if name not in refused and (why := put_on(name, model, undo)) and name == ROUNDED:
                        return why
                _compare_rounded(plain, _outcome(model, exact))
        except Exception as error:  # noqa: BLE001  # whatever it raises, autocast is left
            return reason(error)
    return None


def _why_not(model: Any, names: Sequence[str], exact: Loss, trained: Loss, plain: _Outcome) -> str | None:
    """What is wrong with these shortcuts together; None where nothing is."""
    try:
        with ExitStack() as undo:
            for name in names:
                shortcut_of(name).check()
                put_on(name, model, undo)
            _compare(plain, _outcome(model, exact))
            if not math.isfinite(_outcome(model, trained, training=True).length):
                raise Unknown("a gradient is not a number in training")
    except Exception as error:  # noqa: BLE001  # whatever a shortcut raises, the plain way is left
        return reason(error)
    return None


def _outcome(model: Any, loss: Loss, *, training: bool = False) -> _Outcome:
    """One pass forward and backward; the gradients are taken from the model again."""
    given: list[torch.Tensor] = []

    def keep(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        """With a gradient, frozen as embeddings may be: it has come through every layer."""
        given.append(output if output.requires_grad else output.detach().requires_grad_())
        given[-1].retain_grad()
        return given[-1]

    model.train(training)
    hook = model.get_input_embeddings().register_forward_hook(keep)
    try:
        value = loss(model)
        value.backward()
        kept = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        at_embeddings = [output.grad for output in given if output.grad is not None]  # none of one that only probed
        kept |= {f"embeddings {number}": gradient for number, gradient in enumerate(at_embeddings)}
    finally:
        hook.remove()
        model.zero_grad(set_to_none=True)
    return _Outcome(value.detach(), kept)


def _compare(plain: _Outcome, fast: _Outcome) -> None:
    """Raises `Unknown` where the outcomes differ, or are no numbers at all."""
    difference, size = abs(float(fast.loss - plain.loss)), abs(float(plain.loss))
    if not difference <= TOLERANCE * max(size, SMALL):
        raise Unknown(f"its loss is {float(fast.loss):.6g}, the plain one {float(plain.loss):.6g}")
    if plain.gradients.keys() != fast.gradients.keys():
        names = sorted(plain.gradients.keys() ^ fast.gradients.keys())
        raise Unknown(f"it changes which parameters have a gradient: {names[0]}")
    least = SMALL * plain.length
    if not 0 < least < math.inf:
        raise Unknown("the plain way gives no gradient to compare with")
    for name, gradient in plain.gradients.items():
        off = float((fast.gradients[name] - gradient).norm()) / max(float(gradient.norm()), least)
        if not off <= TOLERANCE:
            raise Unknown(
                f"its gradient of {name} differs by {off:.1g} of the plain one, at most {TOLERANCE:g} expected"
            )


def _compare_rounded(plain: _Outcome, rounded: _Outcome) -> None:
    """Raises `Unknown` where the outcomes differ by more than bf16 explains."""
    difference, size = abs(float(rounded.loss - plain.loss)), abs(float(plain.loss))
    if not difference <= ROUNDED_TOLERANCE * max(size, SMALL):
        raise Unknown(f"its loss is {float(rounded.loss):.6g}, the one in float32 {float(plain.loss):.6g}")
    if plain.gradients.keys() != rounded.gradients.keys():
        raise Unknown("it changes which parameters have a gradient")
    between = {name: rounded.gradients[name] - gradient for name, gradient in plain.gradients.items()}
    off = _Outcome(plain.loss, between).length / max(plain.length, math.ulp(0.0))
    if not off <= ROUNDED_TOLERANCE:
        raise Unknown(f"its gradients differ by {off:.1g} of those in float32, at most {ROUNDED_TOLERANCE:g} expected")


@contextmanager
def _as_it_was(model: Any) -> Iterator[None]:
    """Whatever is done meanwhile, each module is in training or not as before, and no gradient is left."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        model.zero_grad(set_to_none=True)
        for module, training in before:
            module.training = training


@contextmanager
def _stirred(model: Any) -> Iterator[None]:
    """Small random numbers in the place of trainable parameters that are zero, which are zero again afterwards."""
    zeros = [p for p in model.parameters() if p.requires_grad and not p.detach().any()]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in zeros:
            parameter.copy_(NOISE * torch.randn(parameter.shape, generator=generator))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter in zeros:
                parameter.zero_()
