"""A sweep of the fake trainer through the real study and the real MLflow store: prints [ms a trial, peak MB]."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path

from hpo.config import load_config
from hpo.executors.inline import InlineExecutor
from hpo.home import Home
from hpo.search import Search, Slots, run_alone
from hpo.study import open_study
from hpo.sweep import run_sweep
from hpo.tracking import Tracker
from hpo.view import Silent
from trainers import fake
from trainers.spec import Inspect, Inspection

folder = Path(os.environ["BENCH_FOLDER"])
trials = int(os.environ["BENCH_TRIALS"])
model, data = folder / "model", folder / "rows.jsonl"
model.mkdir()
(model / "config.json").write_text("{}")
(model / "model.safetensors").touch()
data.touch()
(folder / "bench.yaml").write_text(
    json.dumps(
        {
            "task": "text-classification",
            "model": str(model),
            "data": {"train": str(data)},
            "search_strategy": {"num_trials": trials},
            "search_space": {
                "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
                "lora_r": {"type": "int", "low": 4, "high": 64, "log": True},
                "batch_size": {"type": "choice", "values": [8, 16, 32]},
            },
            "pruner": {"type": "none"},
        }
    )
)
home = Home(folder / "home")
config = load_config(folder / "bench.yaml", home)
executor = InlineExecutor(fake.work)
inspection = run_alone(executor, Inspect(config.workload(home)))
assert isinstance(inspection, Inspection)
home.dir.mkdir()
study, tracker = open_study(config, home.studies_db), Tracker(home, config, inspection)
began = time.perf_counter()
Search(config, home, inspection, study, tracker, executor, Silent(), Slots(2, 1)).run()
seconds = time.perf_counter() - began
assert callable(run_sweep)  # imported so that its memory counts
peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([seconds / trials * 1000, peak_mb]))
