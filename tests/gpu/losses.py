"""fp32, bf16 and fp16 on the GPU: losses of the same steps, and an evaluation, against fp32 on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tests.gpu.place import Place
from tests.gpu.rows import Row, held, not_run
from tests.gpu.trials import Prepared, furthest, losses, tiny_decoder, tiny_encoder

BOUNDS = {"fp32": 1e-3, "bf16": 5e-2, "fp16": 2e-2}
"""Largest difference of a loss, as a share of the CPU's: what rounding explains after some steps of AdamW."""


def run(place: Place) -> Iterator[Row]:
    """Tiny models of both kinds, in each precision."""
    steps = place.size(24, 2)
    for name, given in (("BERT", tiny_encoder(place.folder / "e")), ("Llama", tiny_decoder(place.folder / "d"))):
        expected, evaluated = _trained(given, place, "cpu", "fp32", steps)
        for precision in place.size(tuple(BOUNDS), ("fp16",)):
            bound = BOUNDS[precision]
            what = f"{name} in {precision}: {steps} losses and an evaluation are the CPU's"
            if precision == "bf16" and not place.rehearses and not torch.cuda.is_bf16_supported(False):
                yield not_run(what, "this GPU does not compute bf16 natively")
                continue
            got, value = _trained(given, place, place.device, precision, steps)
            off, of_value = furthest(got, expected), furthest([value], [evaluated])
            found = f"{off:.1e} and {of_value:.1e} apart, at most {bound:g}"
            yield held(what, max(off, of_value) <= bound, found, losses_apart=off, evaluation_apart=of_value)


def _trained(given: Prepared, place: Place, device: str, precision: str, steps: int) -> tuple[list[float], float]:
    spec = given.spec(place.folder / "trial", device, precision=precision)
    trainer = given.trainer(spec)
    taken = losses(trainer, steps)
    return taken, trainer.evaluate()[0]["loss"]
