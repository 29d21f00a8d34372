"""A fixed queue of eight MiniLM points, as a whole: ours against what a user would write today, and with one job.

Same data and rows, same steps, evaluations and fp32 everywhere. Each tool is a process of its own, timed from its start
to its last result, alone on the machine.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.tables import Row

ROOT = Path(__file__).parents[2]
POINTS: list[dict[str, Any]] = [
    {"learning_rate": rate, "lora_r": rank, "batch_size": size}
    for rate, rank, size in [
        (5e-4, 8, 16), (1e-3, 16, 8), (2e-3, 8, 32), (3e-4, 32, 16),
        (1e-3, 64, 32), (2e-4, 16, 8), (5e-4, 4, 32), (1.5e-3, 32, 16),
    ]
]  # fmt: skip
EVALUATIONS = 5
MAX_LENGTH = 64


def rows(examples: int, ray_python: str | None = None) -> list[Row]:
    """`examples` per trial. `ray_python`: an interpreter that has Ray, which is no dependency of the project; without
    one it is left out."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ours_s, results = ours(folder, "two", examples, jobs=2)
        workload = write_workload(folder, examples)
        rivals = {"transformers + optuna": rival(sys.executable, "trainer_search", workload, examples)}
        if ray_python:
            rivals["Ray Tune"] = rival(ray_python, "ray_search", workload, examples)
        one_s, _ = ours(folder, "one", examples, jobs=1)
    best = min(seconds for seconds, _ in rivals.values())
    told = [Row(f"8 points, {name}", f"{seconds:.0f} s") for name, (seconds, _) in rivals.items()]
    spread = {name: _mean(metrics) for name, (_, metrics) in rivals.items()}
    return [
        Row("8 points, ours, two jobs", f"{ours_s:.0f} s"),
        *told,
        Row("8 points, ours, one job of two threads", f"{one_s:.0f} s"),
        Row("ours against the best of the others", f"{ours_s / best:.2f}", "0.60"),
        Row("one job against two", f"{one_s / ours_s:.2f}", ">= 1.25"),
        Row("mean macro-F1 of the 8, ours", f"{_mean(results):.4f}"),
        *(Row(f"mean macro-F1 of the 8, {name}", f"{value:.4f}") for name, value in spread.items()),
    ]


def ours(folder: Path, name: str, examples: int, jobs: int) -> tuple[float, list[float]]:
    """(seconds, last macro-F1 of each trial)."""
    home = prepared_home(folder / name)
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(sweep(POINTS, examples, EVALUATIONS, pruner={"type": "none"})))
    seconds = timed([sys.executable, "-m", "hpo", "--home", str(home), "sweep", str(file), "--jobs", str(jobs)])
    shown = show(home, "makespan")
    assert [t["state"] for t in shown["trials"]] == ["complete"] * len(POINTS)
    return seconds, [trial["curve"][-1][1] for trial in shown["trials"]]


def sweep(points: list[dict[str, Any]], examples: int, evaluations: int, **changes: Any) -> dict[str, Any]:
    """A queue of points as a sweep; the first one is the baseline."""
    return {
        "name": "makespan",
        "task": "text-classification",
        "model": "fetch:all-MiniLM-L6-v2",
        "data": {"train": "fetch:vader-movie", "validation_size": 500, "test_size": 500},
        "search_strategy": {"type": "random", "num_trials": len(points), "enqueue": points},
        "search_space": {
            "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
            "lora_r": {"type": "int", "low": 4, "high": 64, "log": True},
            "batch_size": {"type": "choice", "values": [8, 16, 32]},
        },
        "training": {
            **points[0], "max_examples": examples, "max_length": MAX_LENGTH, "evaluations": evaluations,
            "precision": "fp32", "early_stopping": {"patience": 99},
        },
        "promote": False,
        **changes,
    }  # fmt: skip


def prepared_home(home: Path) -> Path:
    """A fresh home that has the demo model and data, and nothing tokenized."""
    from hpo.fetch import fetch

    (home / "cache").mkdir(parents=True)
    for name in ("all-MiniLM-L6-v2", "vader-movie"):
        fetch(name, ROOT / "mlruns", say=print)
        (home / "cache" / name).symlink_to(ROOT / "mlruns/cache" / name)
    return home


def write_workload(folder: Path, examples: int) -> Path:
    """The rows as our sweep cut them, for the others."""
    (tokens,) = (folder / "two/cache/tokens").iterdir()
    labels = show(folder / "two", "makespan")["data"]["labels"]
    for split in ("train", "validation"):
        found = [json.loads(line) for line in (tokens / f"{split}.jsonl").read_text().splitlines()]
        lines = (json.dumps({"text": row["text"], "label": labels[row["label"]]}) + "\n" for row in found)
        (folder / f"{split}.jsonl").write_text("".join(lines))
    workload = {
        "model_dir": str(ROOT / "mlruns/cache/all-MiniLM-L6-v2"), "train": "train.jsonl",
        "validation": "validation.jsonl", "labels": labels, "max_length": MAX_LENGTH, "max_examples": examples,
        "evaluations": EVALUATIONS, "points": POINTS, "seed": 0, "alpha_ratio": 2.0, "lora_dropout": 0.05,
        "warmup_ratio": 0.06, "weight_decay": 0.01, "max_grad_norm": 1.0,
    }  # fmt: skip
    path = folder / "workload.json"
    path.write_text(json.dumps(workload))
    return path


def rival(python: str, module: str, workload: Path, examples: int) -> tuple[float, list[float]]:
    command = [python, "-m", f"tests.bench.rivals.{module}", str(workload)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    answer = json.loads(done.stdout.splitlines()[-1])
    assert [trial["steps"] for trial in answer["trials"]] == [math.ceil(examples / p["batch_size"]) for p in POINTS]
    return float(answer["seconds"]), [float(trial["metric"]) for trial in answer["trials"]]


def timed(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - began


def show(home: Path, name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "hpo", "--home", str(home), "show", name, "--json"]
    shown: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout)
    return shown


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
