"""`python -m tests.bench.rivals.trainer_search WORKLOAD.json`: the queue in `Trainer.hyperparameter_search`."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

import optuna
from peft import PeftModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tests.bench.rivals.workload import (
    Trial,
    Workload,
    build_trainer,
    load_workload,
    lora_model,
    print_result,
    tokenized,
)


class Evaluations(TrainerCallback):
    """Notes every evaluation: (step, rows) of each, trial by trial."""

    def __init__(self) -> None:
        self.trials: list[list[tuple[int, int]]] = []

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.trials.append([])

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        self.trials[-1].append((state.global_step, int(metrics["eval_rows"])))


def search(workload: Workload, output_dir: str) -> list[Trial]:
    """Run the queue: a study that has the points enqueued, handed to the search through its storage."""
    rates = [point.learning_rate for point in workload.points]
    ranks = [point.lora_r for point in workload.points]
    sizes = sorted({point.batch_size for point in workload.points})

    def model_init(trial: optuna.Trial | None = None) -> PeftModel:
        # The Trainer asks for a model once without a trial, when it is built.
        rank = trial.suggest_int("lora_r", min(ranks), max(ranks), log=True) if trial else ranks[0]
        return lora_model(workload, rank)

    def hp_space(trial: optuna.Trial) -> dict[str, float]:
        batch_size = trial.suggest_categorical("batch_size", sizes)
        return {
            "learning_rate": trial.suggest_float("learning_rate", min(rates), max(rates), log=True),
            "per_device_train_batch_size": batch_size,
            "max_steps": workload.steps(batch_size),
            "eval_steps": workload.eval_steps(batch_size),
        }

    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="queue", direction="maximize")
    for point in workload.points:
        study.enqueue_trial(dataclasses.asdict(point))
    evaluations = Evaluations()
    trainer = build_trainer(workload, workload.points[0], tokenized(workload), output_dir, evaluations, model_init)
    trainer.hyperparameter_search(
        hp_space=hp_space,
        compute_objective=lambda metrics: metrics["eval_f1_macro"],
        n_trials=len(workload.points),
        direction="maximize",
        backend="optuna",
        pruner=optuna.pruners.NopPruner(),
        storage=storage,
        study_name="queue",
        load_if_exists=True,
    )
    trials = []
    for point, done, seen in zip(workload.points, study.trials, evaluations.trials, strict=True):
        if done.params != dataclasses.asdict(point) or done.value is None or done.duration is None:
            raise RuntimeError(f"trial {done.number} is {done.state.name} at {done.params}, not complete at {point}")
        step, rows = seen[-1]
        trials.append(Trial(point, done.value, step, round(done.duration.total_seconds(), 2), len(seen), rows))
    return trials


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print_result(search(load_workload(Path(sys.argv[1])), scratch))
