"""Memory probe: forward and backward passes of a few sizes, and what a trial needs as a function of them.

Passes grow, and each is taken only where those before it show that it fits. Peaks are the kernel's on a CPU, and the
allocator's on a GPU.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from trainers.fast.enter import WITHOUT_PADDING
from trainers.memory import forget_peak, peak_rss_mb, rss_mb, unshared_mb, while_memory_lasts
from trainers.model.base import Base
from trainers.protocol.files import TrialPaths
from trainers.protocol.memory_model import Activations, Layout, MemoryModel, Rows, size_of
from trainers.protocol.trial_spec import MOST_HALVINGS, TrialSpec
from trainers.training.batches import evaluation_batches, evaluation_tokens
from trainers.training.checkpoint import Checkpoints, Progress
from trainers.training.evaluation import autocast
from trainers.training.optimizer import optimizer_state
from trainers.training.placed import recompute_activations
from trainers.training.probe import ANSWERS, CUDA_CONTEXT_MB, SECONDS
from trainers.training.ranks import summing_bytes
from trainers.training.trainer import Trainer

KEPT_LENGTHS = 512
"""Of training rows, in the answer."""
SHORT = 0.25
"""Of the longest row: the short rows that tell what grows with the square of a length."""
DIFFERENT, MOST_DIFFERENT = 6, 24
"""Steps of different rows one after the other, at least and, where they take no time, at most."""
EVALUATED = 16
"""Batches of an evaluation that is taken for a whole one."""
MB = 1 << 20


@dataclass(frozen=True)
class Pass:
    """A forward and a backward pass over copies of a row, and the peak of memory meanwhile, in MiB."""

    count: int
    row: int
    rows: Rows
    peak_mb: float


def measure_memory(base: Base, spec: TrialSpec, tokens_dir: Path, most_mb: float) -> MemoryModel:
    """The coefficients for trials like this one. Takes no more than `most_mb`, as far as that can be foreseen.

    Raises what the allocator does where not even the shortest pass fits; whatever fails after it is left out.
    """
    meter = _Meter(torch.device(spec.device))
    trainer = Trainer(base, spec, tokens_dir)
    build_mb = meter.peak_mb()
    passes = _Passes(trainer, meter, most_mb)
    first = passes.take(1, passes.short)  # pays for what later ones find ready
    state_mb, saving_mb = _state_mb(trainer), _saving_mb(trainer, meter)
    evaluation_mb, halvings = _evaluation_mb(trainer, meter)
    grown = passes.growing(first)
    fixed_mb, kept = fit_passes(grown, state_mb)
    beside_mb = fixed_mb + state_mb
    evaluating_mb = max(0.0, evaluation_mb - beside_mb)
    varied = passes.varied(max((p.count for p in grown if p.row == passes.long), default=1), halvings)
    needed_mb = [max(kept.needed_mb(p.rows), evaluating_mb) for p in varied]
    retained_mb = max([0.0, *(p.peak_mb - beside_mb - mb for p, mb in zip(varied, needed_mb, strict=True))])
    recomputed: Activations | None = kept
    if not spec.settings["gradient_checkpointing"]:
        recomputed = _recomputed(passes, grown, beside_mb)
    size, parameters = size_of(spec.settings), trainer.trainable_parameters
    lengths = np.sort(trainer.train_tokens.lengths)
    some = np.linspace(0, len(lengths) - 1, min(KEPT_LENGTHS, len(lengths))).astype(int)
    return MemoryModel(
        fixed_mb=fixed_mb + retained_mb,
        build_mb=build_mb,
        parameters=parameters,
        parameters_per_size=_parameters_per_size(trainer.parameters, size),
        size=size,
        bytes_per_parameter=state_mb * MB / parameters,
        saving_bytes_per_parameter=max(0.0, saving_mb - beside_mb) * MB / parameters,
        evaluation_mb=evaluating_mb * (1 << halvings),
        kept=kept,
        recomputed=recomputed,
        layout=passes.layout,
        lengths=lengths[some].tolist(),
        summing_mb=summing_bytes(trainer.parameters) / MB,
    )


class _Meter:
    """The peak of memory that a trial has for itself: on a CPU without the pages that it shares with its host, on a GPU
    all that its allocator holds, for no other process can have that."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.init()  # its counters know no device before
        self.begin()

    def begin(self) -> None:
        """Forget the peak so far."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # what earlier passes needed and this one does not
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            forget_peak()

    def peak_mb(self) -> float:
        """Since `begin`."""
        if self._device.type == "cuda":
            return float(torch.cuda.max_memory_reserved(self._device) / MB + CUDA_CONTEXT_MB)
        return peak_rss_mb() - (rss_mb() - unshared_mb())


class _Passes:
    """Forward and backward passes over copies of one row."""

    def __init__(self, trainer: Trainer, meter: _Meter, most_mb: float) -> None:
        self.layout = _layout(trainer)
        self.trainer = trainer
        self._meter = meter
        self._most_mb = most_mb
        self._usual = trainer.rows_at_once
        self._lengths = trainer.train_tokens.lengths
        longest = int(self._lengths.max())
        self.long, self.short = self._row(longest), self._row(int(longest * SHORT))

    def _row(self, length: int) -> int:
        """The row with something to learn whose length is nearest."""
        nearest = np.argsort(np.abs(self._lengths - length), kind="stable").tolist()
        tokens, count = self.trainer.train_tokens, self.trainer.task.unit_count
        return int(next((row for row in nearest if count(tokens, row)), nearest[0]))

    def rows(self, count: int, row: int) -> Rows:
        """What a pass over so many copies of a row computes."""
        return Rows.of([int(self._lengths[row])] * count, self.layout)

    def take(self, count: int, row: int) -> Pass:
        """One pass. Raises what the allocator does."""
        self._meter.begin()
        self.trainer.micro_batch_size = count
        self.trainer.step([row] * count)
        return Pass(count, row, self.rows(count, row), self._meter.peak_mb())

    def tried(self, count: int, row: int) -> Pass | None:
        """One pass; None where memory runs out."""
        with while_memory_lasts():
            return self.take(count, row)
        return None

    def growing(self, first: Pass) -> list[Pass]:
        """A short and a long row, as many long ones as a trial takes at a time, and short ones with as many tokens, as
        far as they fit. `first` is a short one that did."""
        taken = [self.tried(1, self.short) or first]
        for row, count in ((self.long, 1), (self.long, self._usual), (self.short, 0)):
            wanted = count or max(1, max(p.rows.tokens for p in taken) // self.rows(1, row).tokens)
            fitting = self._fitting(taken, wanted, row)
            if fitting and self.rows(fitting, row) not in [p.rows for p in taken]:
                if (grown := self.tried(fitting, row)) is None:
                    break
                taken.append(grown)
        return taken

    def varied(self, count: int, halvings: int) -> list[Pass]:
        """Steps of two passes over different rows, an evaluation, and steps again, as a trial takes them: an allocator
        keeps what the next one has no use for. Those before memory runs out, where it does."""
        self._meter.begin()
        taken, trainer, began = list[Pass](), self.trainer, time.monotonic()
        trainer.micro_batch_size = count
        with while_memory_lasts():
            for number, batch in enumerate(islice(trainer.batches, MOST_DIFFERENT)):
                part = batch[: 2 * count]
                trainer.step(part)
                rows = Rows.of(sorted(self._lengths[part].tolist())[-count:], self.layout)
                taken.append(Pass(count, part[0], rows, self._meter.peak_mb()))
                if number == DIFFERENT // 2:
                    _evaluate(trainer, halvings)
                if number >= DIFFERENT and time.monotonic() - began > SECONDS:
                    break
        return taken

    def _fitting(self, taken: Sequence[Pass], wanted: int, row: int) -> int:
        """As many copies as fit, going by those passes; at most `wanted`."""
        if len(taken) == 1:
            return wanted
        fixed_mb, activations = fit_passes(taken, 0.0)
        counts = range(wanted, 0, -1)
        fits = (n for n in counts if fixed_mb + activations.needed_mb(self.rows(n, row)) <= self._most_mb)
        return next(fits, 0)


def fit_passes(passes: Sequence[Pass], state_mb: float) -> tuple[float, Activations]:
    """(what is fixed beside the state, activations), so that no pass needed more than they say.

    Squares are left out where lengths do not tell them from tokens, or where they would be negative.
    """
    peaks = np.array([p.peak_mb - state_mb for p in passes])
    columns = np.array([[1.0, p.rows.tokens, p.rows.squares] for p in passes])
    for used in ([0, 1, 2], [0, 1]):
        found = np.zeros(3)
        solved, _, rank, _ = np.linalg.lstsq(columns[:, used], peaks, rcond=None)
        found[used] = solved
        if rank == len(used) and (found[1:] >= 0).all():
            break
    else:
        found = np.zeros(3)
    found[0] += max(peaks - columns @ found)
    return float(found[0]), Activations(float(found[1]), float(found[2]))


def _recomputed(passes: _Passes, grown: Sequence[Pass], beside_mb: float) -> Activations | None:
    """What activations need that are computed twice, going by the two largest passes again that fit; None for a model
    that cannot do that. From here on the model does."""
    try:
        recompute_activations(passes.trainer.model)
    except ValueError:  # transformers: the model does not support gradient checkpointing
        return None
    again = list(islice(filter(None, (passes.tried(p.count, p.row) for p in reversed(grown))), 2))
    if not again:
        return None
    return Activations(max([0.0, *((p.peak_mb - beside_mb) / p.rows.tokens for p in again)]), 0.0)


def _layout(trainer: Trainer) -> Layout:
    if trainer.packs:
        return "packed"
    return "apart" if WITHOUT_PADDING in trainer.shortcuts.used else "padded"


def _state_mb(trainer: Trainer) -> float:
    """Weights that learn, their gradients, and what the optimizer keeps of them; after a step."""
    weights = sum(p.numel() * p.element_size() for p in trainer.parameters)
    kept, _ = optimizer_state(trainer.optimizer)
    return float(2 * weights + sum(t.numel() * t.element_size() for t in kept.values())) / MB


def _parameters_per_size(parameters: Sequence[torch.Tensor], size: int) -> float:
    """How many of them come with one more of a rank, or of what a method has in place of one."""
    return float(sum(p.numel() for p in parameters if size in p.shape) / size) if size else 0.0


def _evaluation_mb(trainer: Trainer, meter: _Meter) -> tuple[float, int]:
    """(peak of an evaluation, how often its batches had to be halved), as far as a trial halves them."""
    peak_mb = 0.0
    for halvings in range(MOST_HALVINGS + 1):
        meter.begin()
        with while_memory_lasts():
            _evaluate(trainer, halvings)
            return meter.peak_mb(), halvings
        peak_mb = meter.peak_mb()
    return peak_mb, MOST_HALVINGS  # so much at least


def _evaluate(trainer: Trainer, halvings: int) -> None:
    """Batches from all over an evaluation, in its order, and a few rows with their metrics, and with answers where
    metrics need such."""
    evaluator, device = trainer.on_all_rows.halved(halvings), trainer.device
    most = evaluation_tokens(device, halvings)
    batches = [batch for _, batch in evaluation_batches(evaluator.tokens, trainer.pad_id, device, most)]
    trainer.model.eval()
    try:
        with torch.inference_mode(), autocast(device, trainer.autocast_dtype):
            for batch in [*batches[:: max(1, len(batches) // EVALUATED)], batches[-1]]:
                trainer.task.score(trainer.model, batch)
        evaluator.on(ANSWERS)(trainer.model)
    finally:
        trainer.model.train()


def _saving_mb(trainer: Trainer, meter: _Meter) -> float:
    """The peak while a checkpoint is written, up to where memory runs out, if it does.

    On the disk of the trial: /tmp may be small, or memory itself. A plan leaves no folder, so it uses /tmp where its
    sweep has none yet.
    """
    meter.begin()
    place = trainer.spec.dir if Path(trainer.spec.dir).is_dir() else None
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=place) as folder, while_memory_lasts():
        Checkpoints(TrialPaths(Path(folder))).save(trainer, Progress(), is_best=True)
    return meter.peak_mb()
