"""Small values that several tests of `hpo` need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpo.config import SweepConfig, load_config
from hpo.home import Home
from trainers.spec import Evaluation, Inspection, TrialResult

INSPECTION = Inspection(
    rows={"train": 1000, "validation": 100, "test": 100}, labels=["a", "b"], tokens_dir="", model_dir="",
    fingerprint="1" * 64,
    model_fingerprint="0" * 64, duplicates=0, truncated=0, train_tokens=10000, gpus=0, notes=[],
)  # fmt: skip


def write_sweep(folder: Path, **changes: Any) -> Path:
    """The smallest sweep that passes every check of its file, with keys added or replaced by keyword."""
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "model.safetensors").touch()
    (folder / "train.jsonl").touch()
    config = {"task": "text-classification", "model": "./model", "data": {"train": "train.jsonl"}, **changes}
    path = folder / "sweep.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def make_config(folder: Path, **changes: Any) -> SweepConfig:
    return load_config(write_sweep(folder, **changes), Home(folder / "home"))


def evaluation(index: int, fraction: float, value: float, metric: str = "f1_macro") -> Evaluation:
    return Evaluation(index, fraction, index, index * 10, index * 100, {metric: value}, 0.0)


def trial_result(state: str = "complete", value: float | None = 0.5, **changes: Any) -> TrialResult:
    stopped_by = {"complete": "budget", "pruned": "pruner", "failed": "failure"}[state]
    fields: dict[str, Any] = {
        "state": state,
        "value": value,
        "metrics": {} if value is None else {"f1_macro": value},
        "best_index": None if value is None else 0,
        "evaluations": [],
        "stopped_by": stopped_by,
        "seconds": 1.0,
    }
    return TrialResult(**{**fields, **changes})
