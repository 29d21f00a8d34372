"""`python -m tests.bench.rivals.ray_search WORKLOAD.json`: the queue in Ray Tune, one CPU a trial."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch
from datasets import Dataset
from ray import tune
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


class Report(TrainerCallback):
    """Tells Ray Tune of every evaluation."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        tune.report(
            {
                "f1_macro": metrics["eval_f1_macro"],
                "evaluated_rows": int(metrics["eval_rows"]),
                "steps": state.global_step,
                "seconds": time.monotonic() - self.began,
            }
        )


def run_trial(config: dict[str, int], workload: Workload, data: tuple[Dataset, Dataset]) -> None:
    """One trial, in a process of its own whose working folder Ray chose."""
    torch.set_num_threads(1)
    report = Report()
    point = workload.points[config["point"]]
    trainer = build_trainer(workload, point, data, "trainer_output", report, lambda: lora_model(workload, point.lora_r))
    trainer.train()


def search(workload: Workload, folder: str) -> list[Trial]:
    """Run the queue, as many trials side by side as Ray counts CPUs."""
    # A token for this cluster alone; without one Ray would write one into the home folder.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray.init(_node_ip_address="127.0.0.1", include_dashboard=False, _temp_dir=folder)
    try:
        if ray.util.get_node_ip_address() != "127.0.0.1":
            raise RuntimeError("Ray listens beyond this machine: see RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER in __init__.py")
        trainable = tune.with_parameters(run_trial, workload=workload, data=tokenized(workload))
        results = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space={"point": tune.grid_search(list(range(len(workload.points))))},
            tune_config=tune.TuneConfig(metric="f1_macro", mode="max"),
            run_config=tune.RunConfig(storage_path=str(Path(folder) / "results")),
        ).fit()
    finally:
        ray.shutdown()
    if results.errors:
        raise results.errors[0]
    by_point = {result.config["point"]: result.metrics for result in results}
    return [
        Trial(
            point,
            by_point[number]["f1_macro"],
            by_point[number]["steps"],
            round(by_point[number]["seconds"], 2),
            by_point[number]["training_iteration"],
            by_point[number]["evaluated_rows"],
        )
        for number, point in enumerate(workload.points)
    ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        print_result(search(load_workload(Path(sys.argv[1])), scratch))
