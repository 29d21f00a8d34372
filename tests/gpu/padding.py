"""Rows without padding on the GPU, and frozen weights that are rounded once: the same losses, sooner and smaller."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from tests.gpu.place import Place
from tests.gpu.rows import Row, held, measured, not_run
from tests.gpu.trials import (
    Prepared,
    finished,
    furthest,
    peak_mb,
    random_llama,
    reset_peak,
    tiny_encoder,
    why_no_checkpointing,
)
from trainers.fast.enter import SHORTCUTS
from trainers.fast.rounded_once import round_once
from trainers.training.evaluation import autocast

UNPADDED = "layers without padding"
PADDED = dict.fromkeys(SHORTCUTS, "for comparison")
WARM_UP = 3


def run(place: Place) -> Iterator[Row]:
    """A Llama of 0.2 B whose rows have 0.1 to 1 times the longest one's tokens, and a tiny BERT."""
    lengths = np.random.default_rng(0).integers(place.size(48, 3), place.size(512, 24), place.size(800, 40)).tolist()
    big = random_llama(place.folder / "big", *place.size((1024, 12, 16), (32, 2, 4)), lengths)
    yield from _compared("Llama", big, place)
    if not place.rehearses:
        yield from _compared("BERT", tiny_encoder(place.folder / "small"), place)
    yield from _packed(big, place)
    yield _checkpointed(big, place)
    yield _rounded(big, place)


def _compared(name: str, given: Prepared, place: Place) -> Iterator[Row]:
    for precision, bound in place.size((("fp32", 1e-3), ("bf16", 3e-2)), (("bf16", 3e-2),)):
        count = place.size(14, 2)
        expected, padded_s, padded_mb, _ = _steps(given, place, precision, count, PADDED)
        got, unpadded_s, unpadded_mb, why = _steps(given, place, precision, count, None)
        what = f"{name} in {precision} without padding"
        yield held(f"{what}: the shortcut is used", place.rehearses or why is None, why or "")
        off = furthest(got, expected)
        yield held(f"{what}: losses are those with it", off <= bound, f"{off:.1e} apart, at most {bound:g}", apart=off)
        ratio, memory = unpadded_s / padded_s, unpadded_mb / max(padded_mb, 1.0)
        found = f"{ratio:.2f} of the padded step's time, {memory:.2f} of its memory"
        yield measured(what, found, step_ratio=ratio, memory_ratio=memory, padded_step_s=padded_s)


def _packed(given: Prepared, place: Place) -> Iterator[Row]:
    count = place.size(10, 2)
    expected, padded_s, _, _ = _steps(given, place, "bf16", count, PADDED)
    ways = (("rows in one kernel", None), ("one mask for all rows", PADDED))
    for name, refused in place.size(ways, ways[:1]):
        got, packed_s, _, _ = _steps(given, place, "bf16", count, refused, packing=True)
        off, ratio = furthest(got, expected), packed_s / padded_s
        what = f"packing, {name}: losses are those of padded rows"
        yield held(what, off <= 3e-2, f"{off:.1e} apart; {ratio:.2f} of the time", apart=off, step_ratio=ratio)


def _checkpointed(given: Prepared, place: Place) -> Row:
    what = "without padding, activations computed twice: losses are the same"
    if why := why_no_checkpointing():
        return not_run(what, why)
    count = place.size(6, 2)
    expected, _, _, _ = _steps(given, place, "bf16", count, None)
    got, _, _, _ = _steps(given, place, "bf16", count, None, gradient_checkpointing=True)
    off = furthest(got, expected)
    return held(what, off <= 1e-2, f"{off:.1e} apart, at most 0.01", apart=off)


def _rounded(given: Prepared, place: Place) -> Row:
    """The same batch under autocast, with weights in float32 and with weights rounded once."""
    spec = given.spec(place.folder / "trial", place.device, precision="fp32", batch_size=4, micro_batch_size=4)
    trainer = given.trainer(spec, PADDED)
    batch = trainer._batch(next(trainer.batches))

    def outcome() -> list[torch.Tensor]:
        with autocast(trainer.device, torch.bfloat16):
            loss = trainer.task.sums(trainer.model, batch, trainer.loss).loss
        return [loss.detach(), *torch.autograd.grad(loss, trainer.parameters)]

    before = outcome()
    numbers = round_once(trainer.model, torch.bfloat16)
    off = max(float((a - b).norm() / b.norm().clamp(min=1e-12)) for a, b in zip(outcome(), before, strict=True))
    what = "frozen weights rounded once: loss and gradients are autocast's"
    return held(what, off <= 1e-2, f"{off:.1e} apart; {numbers / 1e6:.0f} M weights", apart=off)


def _steps(
    given: Prepared, place: Place, precision: str, count: int, refused: dict[str, str] | None, **settings: Any
) -> tuple[list[float], float, float, str | None]:
    """Losses, the median step in seconds, the peak in MB, and why rows were padded if the trainer decided that."""
    rows = place.size(16, 4)
    spec = given.spec(
        place.folder / "trial", place.device, precision=precision, batch_size=rows, micro_batch_size=rows, **settings
    )
    reset_peak(place.device)
    trainer = given.trainer(spec, refused)
    reset_peak(place.device)
    losses, seconds = [], []
    for batch in itertools.islice(trainer.batches, count):
        began = time.perf_counter()
        losses.append(trainer.step(batch)[0])
        finished(place.device)
        seconds.append(time.perf_counter() - began)
    why = None if UNPADDED in trainer.shortcuts.used else trainer.shortcuts.left_out.get(UNPADDED, "it was not tried")
    return losses, statistics.median(seconds[min(WARM_UP, count - 1) :]), peak_mb(place.device), why
