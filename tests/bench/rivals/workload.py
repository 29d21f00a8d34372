"""What the rivals share: the workload file, and the model and the Trainer of a point as a user would write them."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from sklearn.metrics import f1_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


@dataclass(frozen=True)
class Point:
    """What differs between two trials."""

    learning_rate: float
    lora_r: int
    batch_size: int


@dataclass(frozen=True)
class Workload:
    """A fixed queue of trials; the paths are absolute, since a worker may run in a folder of its own."""

    model_dir: str
    train: str
    validation: str
    labels: list[str]
    max_length: int
    max_examples: int
    evaluations: int
    points: list[Point]
    seed: int = 0
    alpha_ratio: float = 2
    lora_dropout: float = 0.0
    warmup_ratio: float = 0.06
    weight_decay: float = 0.01
    max_grad_norm: float = 1

    def steps(self, batch_size: int) -> int:
        """Optimizer steps of a trial."""
        return math.ceil(self.max_examples / batch_size)

    def eval_steps(self, batch_size: int) -> int:
        """Steps between two evaluations; the last one falls on the last step."""
        every, rest = divmod(self.steps(batch_size), self.evaluations)
        if rest:
            raise ValueError(f"{self.steps(batch_size)} steps of {batch_size} are no {self.evaluations} equal shares")
        return every


@dataclass(frozen=True)
class Trial:
    """What came of a point: the macro-F1 of the last evaluation, and what shows that the work was the same."""

    params: Point
    metric: float
    steps: int
    seconds: float
    evaluations: int
    evaluated_rows: int


def load_workload(path: Path) -> Workload:
    """Read the file; paths in it start at its folder."""
    values = json.loads(path.read_text())
    for key in ("model_dir", "train", "validation"):
        values[key] = str(path.resolve().parent / values[key])
    values["points"] = [Point(**point) for point in values["points"]]
    return Workload(**values)


def tokenized(workload: Workload) -> tuple[Dataset, Dataset]:
    """Rows to train on and rows to evaluate, tokenized and not padded."""
    tokenizer = AutoTokenizer.from_pretrained(workload.model_dir)

    def encode(batch: dict[str, list[Any]]) -> dict[str, Any]:
        encoded = tokenizer(batch["text"], truncation=True, max_length=workload.max_length)
        return {**encoded, "labels": [workload.labels.index(str(label)) for label in batch["label"]]}

    def read(path: str) -> Dataset:
        rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
        dataset = Dataset.from_list([{"text": row["text"], "label": row["label"]} for row in rows])
        return dataset.map(encode, batched=True, remove_columns=["text", "label"])

    return read(workload.train), read(workload.validation)


def lora_model(workload: Workload, rank: int) -> PeftModel:
    """The base with adapters on all its linear layers; PEFT trains the fresh head of a classifier in full."""
    labels = dict(enumerate(workload.labels))
    model = AutoModelForSequenceClassification.from_pretrained(
        workload.model_dir, num_labels=len(labels), id2label=labels, dtype=torch.float32
    )
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=rank,
        lora_alpha=workload.alpha_ratio * rank,
        lora_dropout=workload.lora_dropout,
        target_modules="all-linear",
    )
    return get_peft_model(model, config)


def build_trainer(
    workload: Workload,
    point: Point,
    data: tuple[Dataset, Dataset],
    output_dir: str,
    report: TrainerCallback,
    model_init: Callable[..., PeftModel],
) -> Trainer:
    """A Trainer for `point`, which seeds itself before each `model_init`. What is not named here is its default."""
    arguments = TrainingArguments(
        output_dir=output_dir,
        seed=workload.seed,
        learning_rate=point.learning_rate,
        per_device_train_batch_size=point.batch_size,
        max_steps=workload.steps(point.batch_size),
        eval_strategy="steps",
        eval_steps=workload.eval_steps(point.batch_size),
        save_strategy="no",
        lr_scheduler_type="linear",
        warmup_steps=workload.warmup_ratio,  # below 1 it is a share of the steps
        weight_decay=workload.weight_decay,
        max_grad_norm=workload.max_grad_norm,
        report_to="none",
        disable_tqdm=True,
    )
    return Trainer(
        args=arguments,
        train_dataset=data[0],
        eval_dataset=data[1],
        data_collator=DataCollatorWithPadding(AutoTokenizer.from_pretrained(workload.model_dir)),
        compute_metrics=compute_metrics,
        callbacks=[report],
        model_init=model_init,
    )


def compute_metrics(evaluated: EvalPrediction) -> dict[str, float]:
    """Macro-F1, and over how many rows."""
    predicted = evaluated.predictions.argmax(axis=-1)
    f1_macro = f1_score(evaluated.label_ids, predicted, average="macro")
    return {"f1_macro": float(f1_macro), "rows": len(evaluated.label_ids)}


def print_result(trials: list[Trial]) -> None:
    """The one line of JSON at the end."""
    result = {"seconds": round(process_seconds(), 2), "trials": [dataclasses.asdict(trial) for trial in trials]}
    print(json.dumps(result), flush=True)


def process_seconds() -> float:
    """Seconds since this process started, imports included (psutil's `create_time` is a second coarse)."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
