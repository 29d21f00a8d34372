"""The try-out of the shortcuts: a few real rows, for a trial's own model or for a base model with a small LoRA."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import torch

from trainers.data.tokens import Tokens
from trainers.fast.enter import ROUNDED, names_for
from trainers.fast.proof import Loss, refused_by, why_not_rounded
from trainers.fast.shortcut import Unknown, reason
from trainers.model.base import Base
from trainers.model.load import put_adapter_on, resolve_precision
from trainers.protocol.catalog import canonical_settings, default_settings
from trainers.protocol.trial_spec import TrialSpec
from trainers.tasks.base import Batch, Task
from trainers.tasks.table import TASKS
from trainers.training.batches import collate
from trainers.training.evaluation import autocast

ROWS = 3
LONGEST = 24
"""Tokens of the longest of these rows, where there is something to learn from so few; the others are shorter."""
CPU = torch.device("cpu")


def refused_for_base(base: Base, tokens_dir: Path) -> dict[str, str]:
    """Which shortcuts trials on a base model are not to use, and why: tried with LoRA on all of its linear layers.

    The base is changed: for a process that ends afterwards. Raises only that memory ran out.
    """
    dtype = resolve_precision(base.workload.arithmetic, CPU)
    try:
        task = TASKS[base.workload.task]
        model = put_adapter_on(base, _small_lora(base))
        tokens = Tokens(tokens_dir, "train", task.targets)
    except Exception as error:  # noqa: BLE001  # as below
        return dict.fromkeys(names_for(in_bf16=dtype == torch.bfloat16), reason(error))
    return refused_for_model(model, task, tokens, base.pad_id, dtype)


def refused_for_model(
    model: torch.nn.Module, task: Task, tokens: Tokens, pad_id: int, dtype: torch.dtype | None,
    device: torch.device = CPU,
) -> dict[str, str]:  # fmt: skip
    """Which shortcuts a trainable model in float32 on `device` is not to have, and why; the model stays as it is.

    `dtype`: what autocast computes in, None for plain float32. Raises only that memory ran out.
    """
    names = names_for(in_bf16=dtype == torch.bfloat16, device=device.type)
    try:
        batch = few_rows(task, tokens, pad_id).to(device)
        exact, trained = _loss(task, batch, None), _loss(task, batch, dtype)
        refused = refused_by(model, exact, trained, [name for name in names if name != ROUNDED])
        if ROUNDED in names and (why := why_not_rounded(model, exact, refused)):
            refused[ROUNDED] = why
    except Exception as error:  # noqa: BLE001  # what cannot be tried is not used
        return dict.fromkeys(names, reason(error))
    return refused


def few_rows(task: Task, tokens: Tokens, pad_id: int) -> Batch:
    """Rows of about `LONGEST` tokens that something is learned from, cut so that no two have one length.

    What is cut lies before the last token, which some models need (BART's head reads it). Raises `Unknown` where there
    is no such row.
    """
    nearest = np.argsort(np.abs(tokens.lengths - LONGEST), kind="stable").tolist()
    rows = list(islice((row for row in nearest if task.unit_count(tokens, row)), ROWS))
    if not rows:
        raise Unknown("there is no row to try it on")
    rows.sort(key=lambda row: -int(tokens.lengths[row]))  # the longest is cut least
    lengths = [_kept(tokens, row, 2 * place) for place, row in enumerate(rows)]
    whole = collate(tokens, rows, pad_id, CPU)
    columns, kept = torch.arange(max(lengths))[None], torch.tensor(lengths)[:, None]
    ends = whole.attention_mask.sum(1, keepdim=True) - 1
    columns = torch.where(columns == kept - 1, ends, columns)

    def cut(values: torch.Tensor, filler: int) -> torch.Tensor:
        return torch.where(torch.arange(max(lengths))[None] < kept, values.gather(1, columns), filler)

    return Batch(
        cut(whole.input_ids, pad_id),
        cut(whole.attention_mask, 0),
        cut(whole.targets, 0) if task.targets == "token" else whole.targets,
        None if whole.types is None else cut(whole.types, 0),
        whole.target_bytes,
    )


def _kept(tokens: Tokens, row: int, fewer: int) -> int:
    """How many tokens of a row are kept: `fewer` than it has or may have, but all up to the first that it needs."""
    length, needed = int(tokens.lengths[row]), 2
    if tokens.kind == "token":
        needed += 1 + int(np.argmax(tokens.targets(row)[1:] != 0))  # something to learn, before the row's last token
    if (types := tokens.types(row)) is not None:
        needed = max(needed, int(np.argmax(types)) + 1)  # something of the second text
    return min(length, max(needed, min(length, LONGEST) - fewer))


def _loss(task: Task, batch: Batch, dtype: torch.dtype | None) -> Loss:
    def loss(model: torch.nn.Module) -> torch.Tensor:
        with autocast(batch.input_ids.device, dtype):
            return task.sums(model, batch, task.loss).loss

    return loss


def _small_lora(base: Base) -> TrialSpec:
    task = base.workload.task
    settings = {**default_settings(task, "lora"), "target_modules": "all-linear", "lora_r": 4, "lora_dropout": 0.0}
    return TrialSpec(
        0, base.workload, "lora", canonical_settings("lora", settings), metric="", direction="maximize",
        max_examples=1, largest_budget_examples=1, seed=0, inputs_hash="", threads=1, devices=("cpu",), dir="",
    )  # fmt: skip
