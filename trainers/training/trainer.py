"""One trial's model, optimizer, schedule and data: what a step and an evaluation are, and what its state is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import get_scheduler

from trainers.data.tokens import Tokens
from trainers.metrics.table import Rows
from trainers.model.base import Base
from trainers.model.load import put_adapter_on, save_adapter
from trainers.protocol.trial_spec import TrialSpec, rows_at_once
from trainers.tasks.base import Batch, Task
from trainers.tasks.losses import training_loss
from trainers.tasks.table import TASKS
from trainers.training.batches import collate, dealt, draw_from, effective_batches, micro_batches, owners, seed_of
from trainers.training.evaluation import Evaluator, autocast
from trainers.training.optimizer import make_optimizer, optimizer_state, restore_optimizer
from trainers.training.packing import packed
from trainers.training.placed import place
from trainers.training.ranks import ALONE, Ranks

SAMPLE_ROWS = 8
"""In each batch that a method may look at before it begins."""


class Trainer:
    """Everything of a trial that learns or is learned from."""

    def __init__(self, base: Base, spec: TrialSpec, tokens_dir: Path, ranks: Ranks = ALONE) -> None:
        self.spec = spec
        self.ranks = ranks
        self.task: Task = TASKS[spec.workload.task]
        self.labels = base.labels
        self.device = torch.device(spec.device)
        self.pad_id = base.pad_id
        settings = spec.settings
        # Validation rows stay as the sweep cut them: trials with other lengths are judged on the same input.
        self.train_tokens = Tokens(tokens_dir, "train", self.task.targets, int(settings["max_length"] or 1))
        self._lengths = self.train_tokens.lengths
        batch_size = int(settings["batch_size"] or 1)
        self.micro_batch_size = _micro_batch_size(spec, batch_size)
        self.rows_at_once = rows_at_once(batch_size, self.micro_batch_size, len(spec.devices))
        self.model = put_adapter_on(base, spec, self._inputs(spec))
        placed = place(self.model, base, spec, self.task, self.train_tokens, ranks)
        self.is_sharded, self.shortcuts = placed.is_sharded, placed.shortcuts
        self.autocast_dtype = placed.autocast_dtype
        self.on_all_rows = Evaluator(
            base, tokens_dir, "validation", self.device, self.autocast_dtype, spec.micro_batch_halvings, ranks,
            is_sharded=self.is_sharded,
        )  # fmt: skip
        some = settings["evaluation_rows"]
        self.evaluates_some = some is not None and int(some) < len(self.on_all_rows.tokens)
        self.evaluator = self.on_all_rows.on(int(some or 0)) if self.evaluates_some else self.on_all_rows
        self.packs = bool(settings.get("packing"))
        self.loss = training_loss(spec, self.task.loss, self._target_counts)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.total_steps = math.ceil(spec.max_examples / batch_size)
        self.optimizer = make_optimizer(spec, self.parameters)
        kind = str(settings["lr_scheduler_type"])
        self.schedule = get_scheduler(
            "constant_with_warmup" if kind == "constant" else kind,
            self.optimizer,
            num_warmup_steps=_warmup_steps(spec, self.total_steps),
            num_training_steps=self.total_steps,
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.autocast_dtype == torch.float16)
        # It makes its scale when it is first asked for one; a rank may have no row in its first step.
        self.scaler.scale(torch.zeros((), device=self.device))
        self.batches = effective_batches(len(self.train_tokens), batch_size, spec.max_examples, spec.seed)
        self.max_grad_norm = float(settings["max_grad_norm"] or 1)
        self.model.train()  # once: an evaluation leaves it as it was, and telling 300 modules is a millisecond

    def _inputs(self, spec: TrialSpec) -> Iterator[dict[str, torch.Tensor]]:
        """The model's inputs for the first training rows; in batches that no setting changes, so that neither the
        micro-batch nor memory decides what a method makes of them. PEFT moves them where its model is."""
        for rows in effective_batches(len(self.train_tokens), SAMPLE_ROWS, spec.max_examples, spec.seed):
            yield collate(self.train_tokens, rows, self.pad_id, torch.device("cpu")).inputs

    def _target_counts(self) -> torch.Tensor:
        """Training targets of each class."""
        first = 0 if self.train_tokens.kind == "row" else 1  # 0 is a token that nobody asks about
        targets = np.concatenate([self.train_tokens.targets(row) for row in range(len(self.train_tokens))])
        return torch.from_numpy(np.bincount(targets, minlength=len(self.labels) + first)[first:])

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self.schedule.get_last_lr()[0])

    @property
    def trainable_parameters(self) -> int:
        """How many numbers the trial learns."""
        return sum(p.numel() for p in self.parameters)

    def step(self, rows: list[int]) -> tuple[float, int]:
        """One optimizer step over `rows`: (mean loss per unit, tokens).

        Each micro-batch's summed loss is divided by the units of the whole step, so that the update does not depend
        on how the rows are grouped, nor on which rank computes which group. What is drawn at random follows from the
        step and the group.
        """
        self.ranks.order("step", rows)
        units = max(1, sum(self.task.unit_count(self.train_tokens, row) for row in rows))
        groups = self._groups(rows)
        owner = owners(self.train_tokens, groups, self.ranks.count)
        mine = [index for index, rank in enumerate(owner) if rank == self.ranks.number]
        if self.is_sharded:
            self._keep_company(groups[0], max(map(owner.count, owner)) - len(mine))
        losses = []
        for index in mine:
            draw_from(seed_of(self.spec.seed, self.schedule.last_epoch, index), self.device)
            losses.append(self._backward(self._batch(groups[index]), units))
        self.ranks.add_gradients(self.parameters)
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        # Read last: reading a number waits until the GPU has computed all before it.
        loss_sum = self.ranks.total(sum(map(float, losses)))
        return loss_sum / units, int(self._lengths[rows].sum())

    def _backward(self, batch: Batch, units: int) -> torch.Tensor:
        """Add a micro-batch's share to the gradients; its summed loss, which is still on the device."""
        with autocast(self.device, self.autocast_dtype):
            sums = self.task.sums(self.model, batch, self.loss)
        self.scaler.scale(sums.loss / units).backward()
        return sums.loss.detach()

    def _keep_company(self, group: list[int], times: int) -> None:
        """Passes that count for nothing, where another rank has more micro-batches: each gathers sharded layers."""
        for _ in range(times):
            self._backward(self._batch(group), 1)
        self.optimizer.zero_grad(set_to_none=True)

    def _groups(self, rows: list[int]) -> list[list[int]]:
        """The micro-batches of a step: those of one device, unless its batches have too few of them for all ranks."""
        most = math.ceil(int(self.spec.settings["batch_size"] or 1) / self.micro_batch_size)
        if most < self.ranks.count:
            return dealt(self.train_tokens, rows, self.ranks.count)
        return micro_batches(self.train_tokens, rows, self.micro_batch_size)

    def _batch(self, rows: list[int]) -> Batch:
        if self.packs:
            return packed(self.train_tokens, rows, self.device)
        return collate(self.train_tokens, rows, self.pad_id, self.device)

    def has_numbers(self) -> bool:
        """Whether all that is learned is numbers. Losses need not show it: where queries or keys are none, torch's
        attention on some CPUs answers 0."""
        return bool(torch.stack([parameter.detach().isfinite().all() for parameter in self.parameters]).all())

    def evaluate(self) -> tuple[dict[str, float], Rows]:
        """All metrics of the task on the rows that evaluations use, and the per-row results in their order."""
        self.ranks.order("evaluate")
        return self.evaluator(self.model)

    def evaluate_all(self) -> tuple[dict[str, float], Rows]:
        """The same on all validation rows, in the order of the split."""
        self.ranks.order("evaluate_all")
        return self.on_all_rows(self.model)

    def obey(self, order: str, rows: list[int]) -> None:
        """This rank's part of what the leader does. Raises `ValueError` for any other order."""
        if order == "step":
            self.step(rows)
        elif order == "evaluate":
            self.evaluator.measure(self.model)
        elif order == "evaluate_all":
            self.on_all_rows.measure(self.model)
        elif order == "synchronize":
            self.synchronize()
        else:
            raise ValueError(f"no rank knows the order {order!r}")

    def synchronize(self) -> None:
        """All ranks go on with the leader's parameters: what a method computes of the base may differ by rounding."""
        self.ranks.copy_leaders(self.parameters)

    def save_adapter(self, folder: Path) -> None:
        """Write what was learned so far into `folder`, as a whole."""
        save_adapter(self.model, self.spec, folder)

    # --- state ------------------------------------------------------------------------------------------

    def learned(self) -> dict[str, torch.Tensor]:
        """Copies of all trainable parameters on the CPU, which `load_learned` takes back."""
        return _copies({f"parameter.{n}": p for n, p in self.model.named_parameters() if p.requires_grad})

    def load_learned(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on with these parameters, in all ranks. Raises `KeyError` for the parameters of another spec."""
        self._take(tensors)
        self.ranks.order("synchronize")
        self.synchronize()

    def _take(self, tensors: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(tensors[f"parameter.{name}"])

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and plain values that `load_state` takes back, on a trainer of the same spec."""
        tensors, numbers = optimizer_state(self.optimizer)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # a paged optimizer's state is on the CPU, and kernels write it
        plain = {
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "optimizer": numbers,
            "learning_rates": [group["lr"] for group in self.optimizer.param_groups],
        }
        return self.learned() | _copies(tensors), plain

    def load_state(self, tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> None:
        """Raises `KeyError` for the state of another spec."""
        self._take(tensors)
        restore_optimizer(self.optimizer, {**tensors, **plain["optimizer"]})
        self.schedule.load_state_dict(plain["schedule"])
        self.scaler.load_state_dict(plain["scaler"])
        for group, rate in zip(self.optimizer.param_groups, plain["learning_rates"], strict=True):
            group["lr"] = rate


def _copies(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def _warmup_steps(spec: TrialSpec, total_steps: int) -> int:
    steps = spec.settings["warmup_steps"]
    return round(float(spec.settings["warmup_ratio"] or 0) * total_steps) if steps is None else int(steps)


def _micro_batch_size(spec: TrialSpec, batch_size: int) -> int:
    """Rows at a time; halved from what a device really has at a time, or the first halving would change nothing."""
    wanted = min(int(spec.settings["micro_batch_size"] or 1), batch_size)
    if spec.micro_batch_halvings:
        wanted = min(wanted, math.ceil(batch_size / len(spec.devices)))
    return max(1, wanted >> spec.micro_batch_halvings)
