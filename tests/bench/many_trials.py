"""What a person waits for who reads a sweep of 10,000 trials: `hpo list`, `show` and `report` as whole processes."""

from __future__ import annotations

import json
import os
import random
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.bench.engine import Engine, write_sweep
from tests.bench.tables import Row

TRIALS = 10_000
REPEATS = 5
COMMANDS = {
    "list": "1 s", "show bench": "1 s", "report bench --format json": "1 s", "report bench": "1 s", "list --json": "-",
}  # fmt: skip
"""Command -> bound."""

_EVALUATIONS = 5


def rows() -> list[Row]:
    """Median seconds of a command, and how many of them it computes: other processes lengthen only the first."""
    with tempfile.TemporaryDirectory() as folder:
        home = make_home(Path(folder), TRIALS)
        found = {command: _seconds(home, command) for command in COMMANDS}
    return [
        Row(f"hpo {command}, {TRIALS:,} trials: wall, of it CPU", f"{wall:.2f} s, {cpu:.2f} s", bound)
        for (command, bound), (wall, cpu) in zip(COMMANDS.items(), found.values(), strict=True)
    ]


def _seconds(home: Path, command: str) -> tuple[float, float]:
    # As an installed hpo: where Python may keep no compiled files, each run compiles 200 modules.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = {**kept, "PYTHONPYCACHEPREFIX": str(home.parent / "compiled")}
    times = []
    for _ in range(REPEATS + 1):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        arguments = [sys.executable, "-m", "hpo", "--home", str(home), *command.split()]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        times.append((time.perf_counter() - began, cpu))
    walls, cpus = zip(*times[1:], strict=True)  # the first one compiles Python's files
    return statistics.median(walls), statistics.median(cpus)


def make_home(folder: Path, trials: int) -> Path:
    """The home, in `folder`; its sweep is called `bench` and has ended. Optuna itself would write it for minutes."""
    from hpo.config.file import load_config
    from hpo.paths import Home
    from hpo.study.revision import open_revision

    home = Home(folder / "home")
    home.dir.mkdir()
    config = load_config(write_sweep(folder, Engine(strategy="random", trials=trials)), home)
    study = open_revision(config, json.dumps, home.studies_db)[0]
    begun = study.begin(config.baseline())
    assert begun is not None
    number, _ = begun
    study.update_state(state="complete", baseline=0, search_ended_by="all trials done")
    study.finish(number, _result(0.5, 100.0))
    study.close()
    assert home.studies_db.file is not None
    with closing(sqlite3.connect(home.studies_db.file)) as database, database:
        _multiply(database, trials)
    return home.dir


def _result(value: float, seconds: float) -> Any:
    from trainers.protocol.events import Evaluation, TrialResult

    evaluations = [
        Evaluation(i, (i + 1) / _EVALUATIONS, i * 10, i * 80, i * 900, {"f1_macro": value, "loss": 1 - value}, seconds)
        for i in range(_EVALUATIONS)
    ]
    return TrialResult("complete", value, {"f1_macro": value, "loss": 1 - value}, 0, evaluations, "budget", seconds)


def _multiply(database: sqlite3.Connection, trials: int) -> None:
    """Copies of the first trial, each with a point and a result of its own."""
    from trainers.protocol.codec import to_json

    rng = random.Random(0)
    params = database.execute("SELECT param_name, param_value, distribution_json FROM trial_params").fetchall()
    attrs = dict(database.execute("SELECT key, value_json FROM trial_user_attributes").fetchall())
    for number in range(1, trials):
        trial, value = number + 1, round(rng.uniform(0.3, 0.9), 4)
        database.execute(
            "INSERT INTO trials SELECT ?, ?, study_id, state, datetime_start, datetime_complete FROM trials LIMIT 1",
            (trial, number),
        )
        database.execute("INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?, 0, ?, 'FINITE')",
                         (trial, value))  # fmt: skip
        point = {
            "learning_rate": 10 ** rng.uniform(-5, -2),
            "lora_r": rng.randint(4, 64),
            "batch_size": rng.randint(0, 2),
        }
        database.executemany(
            "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (?, ?, ?, ?)",
            [(trial, name, point[name], kind) for name, _, kind in params],
        )
        begun = {**json.loads(attrs["begun"]), "number": number, "identity": f"point {number}"}
        told = {"begun": begun, "run_id": f"{number:032x}", "result": to_json(_result(value, rng.uniform(50, 90)))}
        database.executemany(
            "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
            [(trial, key, json.dumps(content)) for key, content in told.items()],
        )
        database.executemany(
            "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type) "
            "VALUES (?, ?, ?, 'FINITE')",
            [(trial, (i + 1) * 200_000_000, value * (i + 1) / _EVALUATIONS) for i in range(_EVALUATIONS)],
        )
