"""A fixed queue of eight MiniLM points, as a whole: ours against what a user would write today, and with one job.

Same data and rows, same steps, evaluations and fp32 everywhere. Each tool is a process of its own, timed from its start
to its end; they take turns (`turns.py`), so that a machine whose speed drifts treats them alike.
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
from tests.bench.turns import in_turns

ROOT = Path(__file__).parents[2]
POINTS: list[dict[str, Any]] = [
    {"learning_rate": rate, "lora_r": rank, "batch_size": size}
    for rate, rank, size in [
        (5e-4, 8, 16), (1e-3, 16, 8), (2e-3, 8, 32), (3e-4, 32, 16),
        (1e-3, 64, 32), (2e-4, 16, 8), (5e-4, 4, 32), (1.5e-3, 32, 16),
    ]
]  # fmt: skip
EXAMPLES = 3200
"""Of a trial."""
EVALUATIONS = 5
MAX_LENGTH = 64
TWO, ONE = "ours, two jobs", "ours, one job of two threads"


def rows(examples: int, ray_python: str | None = None) -> list[Row]:
    """`examples` per trial. `ray_python`: an interpreter that has Ray, which is no dependency of the project; without
    one it is left out."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        workload = write_workload(folder, examples)
        commands = {
            TWO: ours(folder, "two", examples, jobs=2),
            "transformers + optuna": rival(sys.executable, "trainer_search", workload),
            ONE: ours(folder, "one", examples, jobs=1),
        }
        if ray_python:
            commands["Ray Tune"] = rival(ray_python, "ray_search", workload)
        timed = in_turns(commands, ROOT)
        scores = {TWO: last_scores(folder / "two"), ONE: last_scores(folder / "one")}
    rivals = [name for name in commands if name not in scores]
    scores |= {name: rival_scores(timed[name].output, examples) for name in rivals}
    ours_s = timed[TWO].seconds
    best_s = min(timed[name].seconds for name in rivals)
    return [
        *(Row(f"8 points, {name}", f"{timed[name].seconds:.0f} s") for name in commands),
        Row("ours against the best of the others", f"{ours_s / best_s:.2f}", "0.30"),
        Row("one job against two", f"{timed[ONE].seconds / ours_s:.2f}", ">= 1.25"),
        *(Row(f"mean macro-F1 of the 8, {name}", f"{_mean(scores[name]):.4f}") for name in commands),
    ]


def ours(folder: Path, name: str, examples: int, jobs: int) -> list[str]:
    home = prepared_home(folder / name)
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(sweep(POINTS, examples, EVALUATIONS, pruner={"type": "none"})))
    return [sys.executable, "-m", "hpo", "--home", str(home), "sweep", str(file), "--jobs", str(jobs)]


def last_scores(home: Path) -> list[float]:
    """Macro-F1 of each trial's last evaluation, as the rivals tell theirs."""
    trials = show(home, "makespan")["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * len(POINTS)
    return [trial["curve"][-1][1] for trial in trials]


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
    from hpo.demo.fetch import fetch

    (home / "cache").mkdir(parents=True)
    for name in ("all-MiniLM-L6-v2", "vader-movie"):
        fetch(name, ROOT / "mlruns", say=print)
        (home / "cache" / name).symlink_to(ROOT / "mlruns/cache" / name)
    return home


def write_workload(folder: Path, examples: int) -> Path:
    """The rows as a sweep of ours cuts them, for the others: a tiny one, in a home of its own."""
    home = prepared_home(folder / "cut")
    (folder / "cut.yaml").write_text(json.dumps(sweep(POINTS[:1], POINTS[0]["batch_size"], 1)))
    timed([sys.executable, "-m", "hpo", "--home", str(home), "sweep", str(folder / "cut.yaml")])
    (tokens,) = (home / "cache/tokens").iterdir()
    labels = show(home, "makespan")["data"]["labels"]
    for split in ("train", "validation"):
        found = [json.loads(line) for line in (tokens / f"{split}.jsonl").read_text().splitlines()]
        lines = (json.dumps({"text": row["text"], "label": labels[row["label"]]}) + "\n" for row in found)
        (folder / f"{split}.jsonl").write_text("".join(lines))
    workload = {
        "model_dir": str(ROOT / "mlruns/cache/all-MiniLM-L6-v2"), "train": "train.jsonl",
        "validation": "validation.jsonl", "labels": labels, "max_length": MAX_LENGTH, "max_examples": examples,
        "evaluations": EVALUATIONS, "points": POINTS, "seed": 0, "alpha_ratio": 2.0, "lora_dropout": 0.0,
        "warmup_ratio": 0.06, "weight_decay": 0.01, "max_grad_norm": 1.0,
    }  # fmt: skip
    path = folder / "workload.json"
    path.write_text(json.dumps(workload))
    return path


def rival(python: str, module: str, workload: Path) -> list[str]:
    return [python, "-m", f"tests.bench.rivals.{module}", str(workload)]


def rival_scores(output: str, examples: int) -> list[float]:
    """Macro-F1 of each trial's last evaluation. Raises `AssertionError` when the work was not the same."""
    trials = json.loads(output.splitlines()[-1])["trials"]
    assert [trial["steps"] for trial in trials] == [math.ceil(examples / p["batch_size"]) for p in POINTS]
    return [float(trial["metric"]) for trial in trials]


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
