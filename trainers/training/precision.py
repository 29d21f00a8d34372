"""Which precision `auto` is on this machine: a few real training steps in each, and losses that must agree."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainers.data.tokens import Tokens
from trainers.model.base import Base
from trainers.model.load import resolve_precision
from trainers.protocol.events import Decision
from trainers.protocol.trial_spec import TrialSpec, with_precision
from trainers.tasks.table import TASKS
from trainers.training.trainer import Trainer

CANDIDATES = ("fp32", "bf16")
"""What is measured; the first one is what the others' losses must agree with."""
ROUNDS = 2
"""How often each is measured, in turns: a machine may change its speed meanwhile."""
LOSSES = 3
"""Steps without dropout, whose losses are compared; they warm up, too."""
STEPS = 5
SECONDS = 3.0
"""How many steps are timed, and after how long no further one is begun."""
TOKENS = 512
"""About so many of a step are enough to tell its speed."""
LOSS_BOUND = 0.03
"""Largest difference of a step's loss from that in fp32, as a share of it (or of `SMALL`, where that is more). Rounding
alone gives 0.0005 (MiniLM) and 0.02 (SmolLM2, a few short rows)."""
SMALL = 0.1
GAIN = 1.05
"""How many times as fast as fp32 another precision must be, to be worth its rounding."""

OF_STEPS = 2
"""Raised where steps of one precision change their speed: decisions that were kept before are then made anew."""


@dataclass(frozen=True)
class Measured:
    """A few steps in one precision."""

    losses: list[float]
    seconds: list[float]


def candidates() -> tuple[str, ...]:
    """The precisions to choose from on this CPU: fp32 alone where it does not compute another natively."""
    return CANDIDATES if resolve_precision("auto", torch.device("cpu")) else CANDIDATES[:1]


def measure_steps(base: Base, spec: TrialSpec, tokens_dir: Path, precision: str) -> Measured:
    """Train a few steps of a trial in a precision. The base is changed: for a process that ends afterwards."""
    trainer = Trainer(base, with_precision(spec, precision), tokens_dir)
    steps = _parts(trainer)
    with _WithoutDropout(trainer.model):
        losses = [trainer.step(next(steps))[0] for _ in range(LOSSES)]
    seconds: list[float] = []
    while len(seconds) < STEPS and (not seconds or sum(seconds) < SECONDS):
        began = time.perf_counter()
        trainer.step(next(steps))
        seconds.append(time.perf_counter() - began)
    return Measured(losses, seconds)


def _parts(trainer: Trainer) -> Iterator[list[int]]:
    """The first rows of each batch, about `TOKENS` of them; without end."""
    lengths = trainer.train_tokens.lengths
    batches = [list(rows) for rows in islice(trainer.batches, LOSSES + STEPS)]
    while True:
        for rows in batches:
            part = rows[: trainer.micro_batch_size]
            yield part[: max(1, int(np.searchsorted(np.cumsum(lengths[part]), TOKENS, side="right")))]


class _WithoutDropout:
    """Meanwhile no module drops anything: draws would hide what rounding does."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._before = [(m, m.p) for m in model.modules() if isinstance(m, torch.nn.Dropout)]

    def __enter__(self) -> None:
        for module, _ in self._before:
            module.p = 0.0

    def __exit__(self, *_: object) -> None:
        for module, probability in self._before:
            module.p = probability


def decide(rounds: Sequence[dict[str, Measured]]) -> Decision:
    """The precision that is fastest, among those whose losses agree with fp32's.

    `rounds` holds one measurement of each candidate a round, fp32 among them.
    """
    refused: list[str] = []
    best, why = CANDIDATES[0], ""
    for name in CANDIDATES[1:]:
        if (off := _disagreement(rounds, name)) is not None:
            refused.append(f"{name} gives other losses: {off[1]:.4g} instead of {off[0]:.4g}")
            continue
        gain = _gain(rounds, name)
        if gain >= GAIN:
            best, why = name, f"fp32 {gain:.1f}x slower here"
        else:
            refused.append(f"{name} {1 / gain:.1f}x slower here" if gain < 1 / GAIN else f"{name} no faster here")
    return Decision(best, why or "; ".join(refused))


def _disagreement(rounds: Sequence[dict[str, Measured]], name: str) -> tuple[float, float] | None:
    """The first losses that differ by more than `LOSS_BOUND` from fp32's: (fp32's, the other)."""
    for measured in rounds:
        for plain, other in zip(measured[CANDIDATES[0]].losses, measured[name].losses, strict=True):
            if not abs(other - plain) <= LOSS_BOUND * max(abs(plain), SMALL):  # also where one is no number
                return plain, other
    return None


def _gain(rounds: Sequence[dict[str, Measured]], name: str) -> float:
    """How many times as long a step in fp32 takes: the median over steps on the same rows."""
    return statistics.median(
        plain / other
        for measured in rounds
        for plain, other in zip(measured[CANDIDATES[0]].seconds, measured[name].seconds, strict=False)
    )


def circumstances(spec: TrialSpec, model_fingerprint: str, tokens_dir: Path) -> dict[str, Any]:
    """All that decides which precision is fastest, as plain values: the key that a decision is kept by."""
    capabilities = torch.cpu.get_capabilities()
    tokens = Tokens(tokens_dir, "train", TASKS[spec.workload.task].targets, int(spec.settings["max_length"] or 1))
    batch_size = min(int(spec.settings["micro_batch_size"] or 1), int(spec.settings["batch_size"] or 1))
    return {
        "cpu": str(capabilities.get("cpu_name", "")),
        "flags": sorted(name for name, value in capabilities.items() if value is True),
        "torch": torch.__version__,
        "model": model_fingerprint,
        "task": spec.workload.task,
        "method": spec.method,
        "rows": _coarse(batch_size),
        "lengths": [_coarse(float(np.percentile(tokens.lengths, share))) for share in (50, 90, 100)],
        "threads": spec.threads,
        "steps": OF_STEPS,
    }


def _coarse(number: float) -> int:
    """Rounded up to a power of two, so that another cut of the same data keeps its decision."""
    return 1 << max(0, int(np.ceil(np.log2(max(number, 1)))))
