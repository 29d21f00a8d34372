"""Evaluation: a model's metrics on one split, and its result on every row."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import astuple
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainers.data.tokenizer import end_tokens
from trainers.data.tokens import Tokens
from trainers.fast.enter import ROUNDED, make_fast
from trainers.metrics.table import ROW_RESULTS, Rows, row_results
from trainers.model.base import Base
from trainers.model.load import resolve_precision
from trainers.model.source import load_tokenizer
from trainers.protocol.trial_spec import Generation
from trainers.tasks.base import Task
from trainers.tasks.table import TASKS
from trainers.training.batches import evaluation_batches, evaluation_tokens
from trainers.training.generation import Answer, compare_answers, generate_answers
from trainers.training.ranks import ALONE, Ranks
from trainers.training.shard import is_to_be_sharded, shard_frozen
from trainers.training.subset import subset_order
from trainers.user_code import load_function, named_by_line


class Evaluator:
    """Judges models on one split of a sweep's data: by the metrics of the task, and those that the sweep names besides.

    `micro_batch_halvings`: how often memory ran out; batches are as much smaller.
    """

    def __init__(
        self, base: Base, tokens_dir: Path, split: str, device: torch.device, dtype: torch.dtype | None,
        micro_batch_halvings: int = 0, ranks: Ranks = ALONE, *, is_sharded: bool = False,
    ) -> None:  # fmt: skip
        self.task: Task = TASKS[base.workload.task]
        self.tokens = Tokens(tokens_dir, split, self.task.targets)
        self._base = base
        self._rows_file = tokens_dir / f"{split}.jsonl"
        self._device = device
        self._dtype = dtype
        self._most_tokens = evaluation_tokens(device, micro_batch_halvings)
        self._ranks = ALONE if is_sharded else ranks  # a pass through shards is one of all ranks: each has all rows
        self._without_gradients = torch.no_grad if is_sharded else torch.inference_mode

    def on(self, rows: int) -> Evaluator:
        """The same on the first rows of `subset_order` alone; their results come in that order."""
        smaller = copy.copy(self)
        smaller.tokens = self.tokens.subset(subset_order(self.tokens)[:rows])
        return smaller

    def halved(self, micro_batch_halvings: int) -> Evaluator:
        """The same as where memory ran out so often."""
        smaller = copy.copy(self)
        smaller._most_tokens = evaluation_tokens(self._device, micro_batch_halvings)
        return smaller

    def __call__(self, model: torch.nn.Module) -> tuple[dict[str, float], Rows]:
        """All metrics, and the per-row results [rows, columns] in the order of the split."""
        workload, labels = self._base.workload, self._base.labels
        scores, answers = self.measure(model)
        blocks = [scores]
        if workload.generation:
            blocks.append(compare_answers(answers, len(scores)))
        if own := [metric for metric in workload.metrics if ":" in metric]:
            row_facts = self._described(scores, answers)
            blocks += [own_values(Path(workload.code_dir), metric, row_facts)[:, None] for metric in own]
        rows = np.concatenate(blocks, axis=1)
        return row_results(self.task.name, workload.metrics).metrics(rows, labels), rows

    def measure(self, model: torch.nn.Module) -> tuple[Rows, list[Answer]]:
        """The scores of all rows and the generated answers. Each rank computes a share, and all of them have all."""
        wanted = self._base.workload.generation
        answers: list[list[Any]] = []
        was_training = model.training
        model.eval()
        with self._without_gradients(), autocast(self._device, self._dtype):
            scores = self._scores(model)
            if wanted:
                answers += map(list, map(astuple, self.answers(model, wanted)))
        model.train(was_training)
        return scores, [Answer(*answer) for told in self._ranks.gather(answers) for answer in told]

    def answers(self, model: torch.nn.Module, wanted: Generation) -> Iterator[Answer]:
        """As many generated answers as are `wanted`, or this rank's share of them, beside the data's own."""
        named = self._base.model.config, getattr(self._base.model, "generation_config", None)
        ends = end_tokens(self._tokenizer, *named, is_chat=self.task.name == "chat")
        return generate_answers(
            model, self.tokens, self._tokenizer, ends, wanted, self._most_tokens, self._device, self._ranks
        )

    def _scores(self, model: torch.nn.Module) -> Rows:
        rows = np.zeros((len(self.tokens), ROW_RESULTS[self.task.name].width(self._base.labels)))
        pad_id, most = self._base.pad_id, self._most_tokens
        for numbers, batch in evaluation_batches(self.tokens, pad_id, self._device, most, self._ranks):
            rows[numbers] = self.task.score(model, batch)
        self._ranks.add_up(torch.from_numpy(rows))  # each row is 0 in all ranks but one
        return rows

    def _described(self, scores: Rows, answers: Sequence[Answer]) -> list[dict[str, Any]]:
        """What a metric of the user's is given of each row: the row, its result by name, and its answer if it has
        one."""
        results, labels = ROW_RESULTS[self.task.name], self._base.labels
        row_facts = [{**row, **results.by_name(score, labels)} for row, score in zip(self._rows, scores, strict=True)]
        for answer in answers:
            row_facts[answer.row] |= {"generated": answer.generated, "reference": answer.reference}
        return row_facts

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        with self._rows_file.open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        return [rows[number] for number in self.tokens.numbers]

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(Path(self._base.folder), self._base.workload.model.trust_remote_code)


def own_values(folder: Path, metric: str, row_facts: list[dict[str, Any]]) -> Rows:
    """One number for each row, from a function of the user's, shape [rows].

    Raises `ValueError` where the function is not there or gives anything else.
    """
    function = load_function(folder, metric, "metrics")
    with named_by_line(folder, metric):
        given = function(row_facts)
    try:
        values = np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metrics: {metric} gave {type(given).__name__}: {error}") from error
    if values.shape != (len(row_facts),):
        raise ValueError(
            f"metrics: {metric} gave {list(values.shape)}, expected one number for each of {len(row_facts)} rows"
        )
    return values


def score_model(
    base: Base, tokens_dir: Path, device_name: str, split: str = "validation", precision: str | None = None,
    ranks: Ranks = ALONE, shard: str = "auto",
) -> tuple[dict[str, float], Rows]:  # fmt: skip
    """Metrics and per-row results of a model as it is: the untouched base, or one with an adapter on.

    On a CPU the model keeps the shortcuts that its host has tried; where none were tried, it is left as it is.
    """
    device = torch.device(device_name)
    dtype = resolve_precision(precision or base.workload.arithmetic, device)
    is_sharded = is_to_be_sharded(shard, base.model, device, ranks)
    if is_sharded:
        shard_frozen(base.model, device, ranks)
    elif device.type == "cpu" and base.refused_shortcuts is not None:
        made = make_fast(base.model, base.refused_shortcuts, in_bf16=dtype == torch.bfloat16)
        dtype = None if ROUNDED in made.used else dtype
    return Evaluator(base, tokens_dir, split, device, dtype, 0, ranks, is_sharded=is_sharded)(base.model.to(device))


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
