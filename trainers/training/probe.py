"""Probe: what a trial would cost, from a few seconds of it."""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path

import torch

from trainers.memory import peak_rss_mb, rss_mb
from trainers.model.base import Base
from trainers.protocol.events import Probed
from trainers.protocol.trial_spec import Generation, TrialSpec
from trainers.training.batches import evaluation_batches, evaluation_tokens
from trainers.training.evaluation import autocast
from trainers.training.trainer import Trainer

SECONDS = 3.0
"""How long to train, and how long to evaluate, at most (one step and one batch are always taken)."""
CUDA_CONTEXT_MB = 600.0
"""What a process holds on a GPU besides its tensors: context and kernels. A rule of thumb, not measured."""
ANSWERS = 4
"""Generated, where metrics ask for such."""


def probe(base: Base, spec: TrialSpec, tokens_dir: Path) -> Probed:
    """Train and evaluate for a few seconds; nothing is kept."""
    resident_mb = rss_mb()
    trainer = Trainer(base, spec, tokens_dir)
    first = next(trainer.batches)
    shortest = min(first, key=lambda row: int(trainer.train_tokens.lengths[row]))
    trainer.step([shortest])  # the first step pays for what later ones find ready
    began, examples = time.monotonic(), 0
    for rows in itertools.chain(trainer.batches, itertools.repeat(first)):
        part = rows[: trainer.rows_at_once]  # a step is so many forward passes: one tells its time and its memory
        trainer.step(part)
        examples += len(part)
        if time.monotonic() - began > SECONDS:
            break
    per_example = (time.monotonic() - began) / examples
    per_evaluation = _seconds_per_evaluation(trainer)
    tokens, all_tokens = (int(e.tokens.lengths.sum()) for e in (trainer.evaluator, trainer.on_all_rows))
    on_all_rows = per_evaluation * all_tokens / tokens if trainer.evaluates_some else 0.0
    with tempfile.TemporaryDirectory() as folder:
        trainer.save_adapter(Path(folder, "adapter"))
        adapter_mb = sum(file.stat().st_size for file in Path(folder, "adapter").iterdir()) / 1e6
    memory_mb = peak_rss_mb() - resident_mb
    if trainer.device.type == "cuda":
        memory_mb = torch.cuda.max_memory_reserved(trainer.device) / 2**20 + CUDA_CONTEXT_MB
    return Probed(trainer.trainable_parameters, per_example, per_evaluation, memory_mb, adapter_mb, on_all_rows)


def _seconds_per_evaluation(trainer: Trainer) -> float:
    """The longest batches first (memory is measured too), extrapolated by tokens."""
    tokens = trainer.evaluator.tokens
    total = int(tokens.lengths.sum())
    batches = list(evaluation_batches(tokens, trainer.pad_id, trainer.device, evaluation_tokens(trainer.device)))
    trainer.model.eval()
    began, seen = time.monotonic(), 0
    with torch.inference_mode(), autocast(trainer.device, trainer.autocast_dtype):
        for _, batch in reversed(batches):
            trainer.task.score(trainer.model, batch)
            seen += batch.tokens
            if time.monotonic() - began > SECONDS:
                break
        scored = (time.monotonic() - began) * total / seen
        return scored + _seconds_of_generation(trainer)


def _seconds_of_generation(trainer: Trainer) -> float:
    """Of all answers, from a few of full length: rather too much, for more of them share a batch."""
    wanted = trainer.spec.workload.generation
    if wanted is None:
        return 0.0
    began = time.monotonic()
    few = list(trainer.evaluator.answers(trainer.model, Generation(ANSWERS, wanted.max_new_tokens)))
    return (time.monotonic() - began) * wanted.examples / len(few)
