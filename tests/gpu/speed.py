"""A step of a random 1 B Llama, LoRA of rank 16 in bf16 on 8 rows of 512 tokens, against transformers' Trainer."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.gpu.place import Place
from tests.gpu.rows import Row, held, measured, not_run
from tests.gpu.trials import (
    Prepared,
    finished,
    furthest,
    llama_config,
    peak_mb,
    random_rows,
    reset_peak,
    why_no_checkpointing,
)
from trainers.data.tokens import Tokens
from trainers.model.base import Base
from trainers.protocol.trial_spec import TrialSpec
from trainers.training.trainer import Trainer

BATCH, LENGTH = 8, 512
WARM_UP = 3
SETTINGS = {"lora_r": 16, "lora_alpha": 32.0, "weight_decay": 0.0, "batch_size": BATCH, "micro_batch_size": BATCH}


@dataclass(frozen=True)
class _Run:
    losses: list[float]
    step_s: float
    peak_mb: float


def run(place: Place) -> Iterator[Row]:
    """Ours, and the Trainer's with the base in float32 (our numbers) and in bf16 (what most people load)."""
    length, steps = place.size(LENGTH, 12), place.size(13, 2)
    given = random_rows(place.folder, [length] * (BATCH * (steps + 3)), "in memory")
    ours = _ours(given, place, steps)
    tokens = BATCH * length
    yield measured(f"ours: a step of {BATCH} x {length}", _figures(ours, tokens), **_numbers(ours, tokens))
    theirs = {kind: _theirs(given, place, steps, dtype) for kind, dtype in _BASES.items()}
    for kind, other in theirs.items():
        yield measured(f"transformers' Trainer, {kind}", _figures(other, tokens), **_numbers(other, tokens))
    exact, usual = theirs.values()
    off = furthest(ours.losses, exact.losses)
    yield held("losses are the Trainer's", off <= 2e-2, f"{off:.1e} apart, at most 0.02", apart=off)
    for name, other in (("the base in float32", exact), ("the base in bf16", usual)):
        time_ratio, memory = ours.step_s / other.step_s, ours.peak_mb / max(other.peak_mb, 1.0)
        found = f"{time_ratio:.2f} of its time, {memory:.2f} of its memory"
        yield measured(f"ours against the Trainer, {name}", found, step_ratio=time_ratio, memory_ratio=memory)
    yield _with_checkpointing(given, place, steps, ours)


_BASES = {"the base in float32, bf16 by autocast": torch.float32, "the base in bf16": torch.bfloat16}


def _figures(one: _Run, tokens: int) -> str:
    each = tokens / one.step_s
    return f"{each:,.0f} tokens a second, peak {one.peak_mb / 1e3:.1f} GB ({one.step_s * 1e3:.0f} ms)"


def _numbers(one: _Run, tokens: int) -> dict[str, float]:
    return {"tokens_per_second": tokens / one.step_s, "step_s": one.step_s, "peak_mb": one.peak_mb}


def _model(place: Place) -> Any:
    """With random weights, made on the device: a billion numbers take a CPU half a minute."""
    from transformers import LlamaForCausalLM

    sizes = place.size((2048, 16, 32), (32, 2, 4))
    vocabulary = place.size(32000, 512)
    torch.manual_seed(0)
    with torch.device(place.device):
        model = LlamaForCausalLM(llama_config(*sizes, vocab_size=vocabulary, rope_theta=500000.0))
    model.config.use_cache = False
    return model.requires_grad_(False).eval()


def _spec(given: Prepared, place: Place, **settings: Any) -> TrialSpec:
    return given.spec(place.folder / "trial", place.device, precision="bf16", **{**SETTINGS, **settings})


def _ours(given: Prepared, place: Place, steps: int, **settings: Any) -> _Run:
    spec = _spec(given, place, **settings)
    trainer = Trainer(Base(spec.workload, [], _model(place), [], []), spec, Path(given.found.tokens_dir))
    reset_peak(place.device)
    losses, seconds = [], []
    for rows in itertools.islice(trainer.batches, steps):
        began = time.perf_counter()
        losses.append(trainer.step(rows)[0])
        finished(place.device)
        seconds.append(time.perf_counter() - began)
    return _Run(losses, _median(seconds), peak_mb(place.device))


def _theirs(given: Prepared, place: Place, steps: int, dtype: torch.dtype) -> _Run:
    from transformers import TrainerCallback, TrainingArguments
    from transformers import default_data_collator as collator

    from tests.gpu.their_trainer import InOrder
    from trainers.model.load import put_adapter_on

    gc.collect()
    reset_peak(place.device)
    spec = _spec(given, place)
    model = _model(place)
    model = put_adapter_on(Base(spec.workload, [], model.to(dtype), [], []), spec)
    seconds: list[float] = []

    class Watch(TrainerCallback):
        began = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            finished(place.device)
            seconds.append(time.perf_counter() - self.began)

    arguments = TrainingArguments(
        output_dir=str(place.folder / "theirs"), max_steps=steps, per_device_train_batch_size=BATCH,
        learning_rate=float(spec.settings["learning_rate"] or 0), weight_decay=0.0, lr_scheduler_type="constant",
        logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=place.rehearses, bf16=True,
    )  # fmt: skip
    theirs = InOrder(model, arguments, collator, _rows(given, spec, BATCH * steps), callbacks=[Watch()])
    theirs.train()
    losses = [entry["loss"] for entry in theirs.state.log_history if "loss" in entry]
    return _Run(losses, _median(seconds), peak_mb(place.device))


def _rows(given: Prepared, spec: TrialSpec, count: int) -> Sequence[dict[str, list[int]]]:
    from trainers.training.batches import effective_batches

    tokens = Tokens(Path(given.found.tokens_dir), "train", "token")
    batches = effective_batches(len(tokens), BATCH, count, spec.seed)
    every = [tokens.ids(row).tolist() for rows in batches for row in rows]
    return [{"input_ids": ids, "labels": ids, "attention_mask": [1] * len(ids)} for ids in every]


def _with_checkpointing(given: Prepared, place: Place, steps: int, plain: _Run) -> Row:
    what = "ours with gradient_checkpointing, against without"
    if why := why_no_checkpointing():
        return not_run(what, why)
    gc.collect()
    one = _ours(given, place, steps, gradient_checkpointing=True)
    off, memory = furthest(one.losses, plain.losses), one.peak_mb / max(plain.peak_mb, 1.0)
    found = f"{one.step_s / plain.step_s:.2f} of the time, {memory:.2f} of the memory, losses {off:.1e} apart"
    return held(what, off <= 2e-2, found, step_ratio=one.step_s / plain.step_s, memory_ratio=memory)


def _median(seconds: Sequence[float]) -> float:
    return statistics.median(seconds[min(WARM_UP, len(seconds) - 1) :])
