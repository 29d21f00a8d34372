"""The training loop: steps, evaluations at fixed shares of the budget, the best adapter kept.

A generator: it yields events and takes a verdict after each evaluation, so whoever drives it (a forked child, a test)
decides when it goes on.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import get_scheduler

from trainers.batches import collate, effective_batches, evaluation_batches, micro_batches
from trainers.early_stopping import EarlyStopping
from trainers.files import TrialPaths
from trainers.model import Base, put_adapter_on, resolve_precision, save_adapter
from trainers.spec import Evaluation, Event, Failed, Step, TrialResult, TrialSpec, Verdict
from trainers.tasks.base import Task
from trainers.tasks.table import TASKS
from trainers.tokens import Tokens

STEP_EVENT_EVERY_S = 0.5
StoppedBy = Literal["budget", "early_stopping", "pruner"]


class Trainer:
    """One trial under way: model, optimizer, schedule and data."""

    def __init__(self, base: Base, spec: TrialSpec, tokens_dir: Path) -> None:
        self.spec = spec
        self.task: Task = TASKS[spec.workload.task]
        self.labels = base.labels
        self.device = torch.device(spec.device)
        self.autocast_dtype = resolve_precision(spec.workload.precision, self.device)
        self.pad_id = int(base.model.config.pad_token_id or 0)
        self.train_tokens = Tokens(tokens_dir, "train")
        self.validation_tokens = Tokens(tokens_dir, "validation")
        self.model = put_adapter_on(base, spec).to(self.device)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        settings = spec.settings
        batch_size = int(settings["batch_size"] or 1)
        self.total_steps = math.ceil(spec.max_examples / batch_size)
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=float(settings["learning_rate"] or 0),
            weight_decay=float(settings["weight_decay"] or 0),
        )
        kind = str(settings["lr_scheduler_type"])
        self.schedule = get_scheduler(
            "constant_with_warmup" if kind == "constant" else kind,
            self.optimizer,
            num_warmup_steps=round(float(settings["warmup_ratio"] or 0) * self.total_steps),
            num_training_steps=self.total_steps,
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.autocast_dtype == torch.float16)
        self.batches = effective_batches(len(self.train_tokens), batch_size, spec.max_examples, spec.seed)
        self.max_grad_norm = float(settings["max_grad_norm"] or 1)
        self.micro_batch_size = int(settings["micro_batch_size"] or 1)

    def step(self, rows: list[int]) -> tuple[float, int]:
        """One optimizer step over `rows`: (mean loss per unit, tokens).

        Each micro-batch's summed loss is divided by the units of the whole step, so that the update does not depend
        on how the rows are grouped.
        """
        self.model.train()
        units = sum(self.task.unit_count(self.train_tokens, row) for row in rows)
        loss_sum, tokens = 0.0, 0
        for group in micro_batches(self.train_tokens, rows, self.micro_batch_size):
            batch = collate(self.train_tokens, group, self.pad_id, self.device)
            with autocast(self.device, self.autocast_dtype):
                sums = self.task.sums(self.model, batch)
            self.scaler.scale(sums.loss / units).backward()
            loss_sum += float(sums.loss.detach())
            tokens += batch.tokens
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss_sum / units, tokens

    def evaluate(self) -> dict[str, float]:
        """All metrics of the task on the validation rows."""
        self.model.eval()
        with torch.inference_mode(), autocast(self.device, self.autocast_dtype):
            batches = evaluation_batches(self.validation_tokens, self.pad_id, self.device)
            return self.task.evaluate(self.model, batches, self.labels)


def train(base: Base, spec: TrialSpec, tokens_dir: Path) -> Generator[Event, Verdict | None, None]:
    """Train one trial. Yields `Step`s, `Evaluation`s (each waits for a verdict) and a `TrialResult` or `Failed`."""
    began = time.monotonic()
    trainer = Trainer(base, spec, tokens_dir)
    paths = TrialPaths(Path(spec.dir))
    patience = int(spec.settings["early_stopping.patience"] or 1)
    stopping = EarlyStopping(spec.direction, patience, float(spec.settings["early_stopping.min_delta"] or 0))
    evaluations: list[Evaluation] = []
    best: Evaluation | None = None
    stopped_by: StoppedBy = "budget"
    for event in _run(trainer, began):
        if isinstance(event, Failed):
            yield event
            return
        if isinstance(event, Step):
            yield event
            continue
        evaluations.append(event)
        if stopping.is_best(event.metrics[spec.metric]):
            best = event
            save_adapter(trainer.model, paths.adapter)
        verdict = yield event
        if verdict == "stop" or stopping.should_stop:
            stopped_by = "pruner" if verdict == "stop" else "early_stopping"
            break
    if best is None:
        yield Failed("diverged", f"{spec.metric} was never a number")
        return
    yield TrialResult(
        state="pruned" if stopped_by == "pruner" else "complete",
        value=best.metrics[spec.metric],
        metrics=best.metrics,
        best_index=best.index,
        evaluations=evaluations,
        stopped_by=stopped_by,
        seconds=time.monotonic() - began,
        trainable_parameters=sum(p.numel() for p in trainer.parameters),
        peak_rss_mb=peak_rss_mb(),
    )


def _run(trainer: Trainer, began: float) -> Iterator[Step | Evaluation | Failed]:
    """All steps of the budget, with evaluations at equal shares of the examples."""
    count = int(trainer.spec.settings["evaluations"] or 1)
    budget = trainer.spec.max_examples
    examples = tokens = index = losses = 0
    loss_sum = 0.0
    last_event = 0.0
    for step, rows in enumerate(trainer.batches, 1):
        loss, step_tokens = trainer.step(rows)
        examples, tokens = examples + len(rows), tokens + step_tokens
        loss_sum, losses = loss_sum + loss, losses + 1
        if not math.isfinite(loss):
            yield Failed("diverged", f"loss is {loss} at step {step}")
            return
        due = examples * count // budget  # evaluations that should have happened by now
        elapsed = time.monotonic() - began
        if due > index or step == 1 or elapsed - last_event > STEP_EVENT_EVERY_S:
            rate = float(trainer.schedule.get_last_lr()[0])
            yield Step(step, examples, loss_sum / losses, rate, elapsed)
            last_event, loss_sum, losses = elapsed, 0.0, 0
        if due > index:
            metrics = trainer.evaluate()
            yield Evaluation(due - 1, due / count, step, examples, tokens, metrics, time.monotonic() - began)
            index = due


def evaluate_base(base: Base, tokens_dir: Path, device_name: str, precision: str | None = None) -> dict[str, float]:
    """All metrics of the untouched base model on the validation rows."""
    device = torch.device(device_name)
    model = base.model.to(device).eval()
    dtype = resolve_precision(precision or base.workload.precision, device)
    with torch.inference_mode(), autocast(device, dtype):
        batches = evaluation_batches(Tokens(tokens_dir, "validation"), int(base.model.config.pad_token_id or 0), device)
        return TASKS[base.workload.task].evaluate(model, batches, base.labels)


def autocast(device: torch.device, dtype: torch.dtype | None) -> Any:
    """Autocast to `dtype`, or nothing for plain float32."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
