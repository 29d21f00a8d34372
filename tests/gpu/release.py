"""A release for GPUs: a trained classifier as ONNX in fp32 and fp16, run by onnxruntime on the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnxruntime

from tests.gpu.place import Place
from tests.gpu.rows import Row, held, not_run
from tests.gpu.trials import losses, tiny_encoder
from trainers.export.promotion import export, measure_variant
from trainers.model.load import load_base
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import Export, Measure

BOUNDS = {"fp32": 1e-3, "fp16": 2e-2}
"""Largest difference of a logit from torch's."""


def run(place: Place) -> Iterator[Row]:
    """Both variants, or none where onnxruntime has no CUDA."""
    found = onnxruntime.get_available_providers()
    if not place.rehearses and "CUDAExecutionProvider" not in found:
        yield not_run("releases on the GPU", "this onnxruntime has no CUDAExecutionProvider (onnxruntime-gpu has)")
        return
    given = tiny_encoder(place.folder / "e")
    spec = given.spec(place.folder / "trial", place.device)
    trainer = given.trainer(spec)
    losses(trainer, 4)
    trainer.save_adapter(TrialPaths(Path(spec.dir)).adapter)
    base = load_base(spec.workload, given.found.labels)
    folder, variants = place.folder / "release", place.size(["fp32", "fp16"], ["fp32"])
    exported = export(base, Export(spec, given.found, variants, str(folder), place.size("cuda", "cpu")))
    rows = Path(given.found.tokens_dir) / "validation.jsonl"
    for variant in variants:
        if variant in exported.failures:
            yield held(f"{variant} is exported", False, exported.failures[variant])
            continue
        one = measure_variant(Measure(variant, str(folder), str(rows), threads=1))
        off, bound = one.max_logit_diff, BOUNDS[variant]
        speed = f"{one.latency_p50_ms:.2f} ms for a row, {one.size_mb:.1f} MB"
        yield held(f"{variant}: logits are torch's", off <= bound, f"{off:.1e} apart, at most {bound:g}; {speed}",
                   apart=off, latency_p50_ms=one.latency_p50_ms)  # fmt: skip
