"""A step of a trial in fp32, in bf16 by autocast, and with frozen layers in bf16: in turns, one thread."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from tests.bench.steps import CASES, WARM_UP, Case, drop_nothing, real_spec
from tests.bench.tables import Row
from trainers.fast.enter import ROUNDED
from trainers.model.load import load_base
from trainers.training.trainer import Trainer

SMOLLM2 = replace(CASES["SmolLM2-8"], batch_size=2, max_length=384)
"""A step of it in three precisions is half a minute."""
COMPARED = {"MiniLM-8": CASES["MiniLM-8"], "MiniLM-16": CASES["MiniLM-16"], "SmolLM2-2": SMOLLM2}


def rows(steps: int) -> list[Row]:
    """Each case: both kinds of bf16 against fp32, in time and losses."""
    torch.set_num_threads(1)
    told = []
    for name, case in COMPARED.items():
        for drops in (True, False):
            with tempfile.TemporaryDirectory() as scratch:
                seconds, losses = _measured(case, Path(scratch), steps, drops=drops)
            plain = "fp32"
            for way in (way for way in seconds if way != plain):
                if drops:
                    shares = [s / p for s, p in zip(seconds[way], seconds[plain], strict=True)]
                    told.append(Row(f"{name}: a step, {way} against {plain}", f"{statistics.median(shares):.2f}"))
                else:
                    off = max(abs(a - b) for a, b in zip(losses[way], losses[plain], strict=True))
                    told.append(Row(f"{name}: largest difference of losses, {way}", f"{off:.1e}"))
    return told


def _measured(
    case: Case, folder: Path, steps: int, *, drops: bool
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds after the warm-up and losses of all steps, by the way that they are computed."""
    spec, found = real_spec(case, folder)
    trainers = {}
    for way, precision, refused in (
        ("fp32", "fp32", {}), ("autocast", "bf16", {ROUNDED: "compared"}), ("frozen in bf16", "bf16", {}),
    ):  # fmt: skip
        base = load_base(replace(spec.workload, precision=precision), found.labels)
        base.refused_shortcuts = dict(refused)
        trainer = Trainer(base, replace(spec, workload=base.workload), Path(found.tokens_dir))
        if not drops:
            drop_nothing(trainer.model)
        trainers[way] = trainer, iter(trainer.batches)
    seconds: dict[str, list[float]] = {way: [] for way in trainers}
    losses: dict[str, list[float]] = {way: [] for way in trainers}
    for _ in range(steps):
        for way, (trainer, batches) in trainers.items():
            began = time.perf_counter()
            losses[way].append(trainer.step(next(batches))[0])
            seconds[way].append(time.perf_counter() - began)
    return {way: all_of[WARM_UP:] for way, all_of in seconds.items()}, losses
