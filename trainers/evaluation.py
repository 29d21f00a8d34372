"""Evaluation: a model's metrics on one split, and its result on every row."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainers.batches import evaluation_batches, evaluation_tokens
from trainers.metrics.table import ROW_RESULTS, Rows
from trainers.model import Base, resolve_precision
from trainers.tasks.base import Task
from trainers.tasks.table import TASKS
from trainers.tokens import Tokens


def evaluate(
    model: torch.nn.Module, task: Task, tokens: Tokens, labels: list[str], pad_id: int, device: torch.device,
    dtype: torch.dtype | None, halvings: int = 0,
) -> tuple[dict[str, float], Rows]:  # fmt: skip
    """All metrics of the task on a split, and the per-row results [rows, columns] in the order of the split."""
    results = ROW_RESULTS[task.name]
    rows = np.zeros((len(tokens), results.width(labels)))
    was_training = model.training
    model.eval()
    with torch.inference_mode(), autocast(device, dtype):
        for numbers, batch in evaluation_batches(tokens, pad_id, device, evaluation_tokens(device, halvings)):
            rows[numbers] = task.score(model, batch)
    model.train(was_training)
    return results.metrics(rows, labels), rows


def score_model(
    base: Base, tokens_dir: Path, device_name: str, split: str = "validation", precision: str | None = None
) -> tuple[dict[str, float], Rows]:
    """Metrics and per-row results of a model as it is: the untouched base, or one with an adapter on."""
    device = torch.device(device_name)
    dtype = resolve_precision(precision or base.workload.precision, device)
    task = TASKS[base.workload.task]
    return evaluate(
        base.model.to(device), task, Tokens(tokens_dir, split, task.targets), base.labels, base.pad_id, device, dtype
    )


def autocast(device: torch.device, dtype: torch.dtype | None) -> Any:
    """Autocast to `dtype`, or nothing for plain float32."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def save_rows(rows: Rows, path: Path) -> None:
    """Per-row results as .npy, by rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.tmp")
    with scratch.open("wb") as file:
        np.save(file, rows, allow_pickle=False)
    scratch.replace(path)
