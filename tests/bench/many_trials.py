"""A home whose study has 10,000 trials, written with SQL: Optuna itself would take minutes to make it."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.bench.engine import Engine, write_sweep

_EVALUATIONS = 5


def make_home(folder: Path, trials: int) -> Path:
    """The home, in `folder`; its sweep is called `bench` and has ended."""
    from hpo.config.file import load_config
    from hpo.paths import Home
    from hpo.study.revision import open_revision

    home = Home(folder / "home")
    home.dir.mkdir()
    config = load_config(write_sweep(folder, Engine(strategy="random", trials=trials)), home)
    study = open_revision(config, json.dumps, home.studies_db)[0]
    number, _ = study.begin(config.baseline())
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
