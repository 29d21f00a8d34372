"""Every method on the GPU: some steps in bf16, kept, loaded again beside a fresh base, and the same evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.gpu.place import Place
from tests.gpu.rows import Row, held
from tests.gpu.trials import Prepared, furthest, losses, tiny_decoder, tiny_encoder
from trainers.model.load import load_adapter, load_base
from trainers.protocol.catalog import METHODS
from trainers.training.evaluation import score_model

QUANTIZED = ("loftq", "qlora")
REHEARSED = ("lora", "prompt", "eva")
BOUND = 2e-2


def run(place: Place) -> Iterator[Row]:
    """On the tiny Llama; what it has no use for, on the tiny BERT."""
    decoder, encoder = tiny_decoder(place.folder / "d"), tiny_encoder(place.folder / "e")
    for method in place.size(tuple(METHODS), REHEARSED):
        if method not in QUANTIZED:  # they have rows of their own
            yield _row(method, decoder, place)
    yield _row("lora", encoder, place)


def _row(method: str, given: Prepared, place: Place) -> Row:
    what = f"{method} on {given.workload.task}"
    try:
        return kept_and_loaded(what, method, given, place)
    except Exception as error:  # noqa: BLE001  # the others are looked at all the same
        return held(what, False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def kept_and_loaded(what: str, method: str, given: Prepared, place: Place, **settings: Any) -> Row:
    """Its losses are numbers, and what it keeps gives the evaluation that it had."""
    spec = given.spec(place.folder / "trial", place.device, method=method, precision="bf16", batch_size=8, **settings)
    trainer = given.trainer(spec)
    taken = losses(trainer, place.size(8, 2))
    value = trainer.evaluate()[0]["loss"]
    adapter = place.folder / f"{method}-{given.workload.task}"
    trainer.save_adapter(adapter)
    base = load_base(spec.workload, given.found.labels, scale=given.found.scale)
    base = replace(base, model=load_adapter(base, spec, adapter))
    metrics, _ = score_model(base, Path(given.found.tokens_dir), place.device, precision="bf16")
    off = furthest([metrics["loss"]], [value])
    found = f"loss {taken[0]:.3f} to {taken[-1]:.3f}; loaded again {off:.1e} apart"
    return held(what, all(map(math.isfinite, taken)) and off <= BOUND, found, apart=off)
