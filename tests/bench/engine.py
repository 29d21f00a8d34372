"""A sweep of the fake trainer, measured in a process of its own: `measured_sweep.py` is what runs there.

Asked by name: `strategy`, `trials`, `database` (SQLite, or the server of `HPO_STUDIES`, or memory), `tracked` (MLflow
or nothing), `host` (a trial host that forks a child for each trial, or a generator in this process).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Engine:
    strategy: str = "tpe"
    trials: int = 20
    database: bool = True
    tracked: bool = True
    host: bool = False


@dataclass(frozen=True)
class Measured:
    """When each trial ended (seconds after the start), and what was resident then (MB)."""

    ended_s: list[float]
    sweep_mb: list[float]
    host_mb: list[float]
    peak_mb: float

    def seconds_per_trial(self, first: int = 0, last: int | None = None) -> float:
        ended = [0.0, *self.ended_s][first : None if last is None else last + 1]
        return (ended[-1] - ended[0]) / (len(ended) - 1)


def measure(engine: Engine, studies: str = "") -> Measured:
    """Run in a fresh process, so that nothing measured before counts; `studies` is what `HPO_STUDIES` says there."""
    command = [sys.executable, "-m", "tests.bench.measured_sweep", json.dumps(asdict(engine))]
    environment = {**os.environ, "HPO_STUDIES": studies}
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def write_sweep(folder: Path, engine: Engine) -> Path:
    model, data = folder / "model", folder / "rows.jsonl"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").touch()
    data.touch()
    space: dict[str, Any] = {
        "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
        "lora_r": {"type": "int", "low": 4, "high": 64, "log": True},
        "batch_size": {"type": "choice", "values": [8, 16, 32]},
    }
    config = {
        "task": "text-classification", "model": str(model), "data": {"train": str(data)}, "search_space": space,
        "search_strategy": {"type": engine.strategy, "num_trials": engine.trials}, "pruner": {"type": "none"},
    }  # fmt: skip
    (folder / "bench.yaml").write_text(json.dumps(config))
    return folder / "bench.yaml"
