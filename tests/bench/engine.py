"""A sweep of the fake trainer, in a process of its own: `python -m tests.bench.engine JSON` prints its measurements.

Asked by name: `strategy`, `trials`, `database` (SQLite, or the server of `HPO_STUDIES`, or memory), `tracked` (MLflow
or nothing), `host` (a trial host that forks a child for each trial, or a generator in this process).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
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
    command = [sys.executable, "-m", "tests.bench.engine", json.dumps(asdict(engine))]
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


def run(engine: Engine, folder: Path) -> Measured:
    from hpo.commands.sweep import run_sweep
    from hpo.config.budget import Budget, Meter, Spent
    from hpo.config.file import load_config
    from hpo.config.trial_specs import TrialSpecs
    from hpo.executors.inline import InlineExecutor
    from hpo.executors.local import LocalExecutor
    from hpo.paths import Home
    from hpo.search.controller import SearchController
    from hpo.search.proposals import Proposals
    from hpo.study.one_writer import one_writer
    from hpo.study.revision import open_revision
    from hpo.study.store import open_study
    from hpo.terminal import Silent
    from hpo.tracking.base import Untracked
    from hpo.tracking.mlflow_tracker import Tracker
    from hpo.trials.calls import run_alone
    from hpo.trials.context import SweepContext
    from hpo.trials.scheduler import TrialScheduler
    from hpo.trials.slots import Slots
    from trainers.host import fake
    from trainers.memory import peak_rss_mb
    from trainers.protocol.events import PreparedData, TrialResult
    from trainers.protocol.requests import Inspect

    assert callable(run_sweep)  # imported so that its memory counts
    home = Home(folder / "home")
    home.dir.mkdir()
    config = load_config(write_sweep(folder, engine), home)
    executor = LocalExecutor(folder / "host.log", "trainers.host.fake") if engine.host else InlineExecutor(fake.work)
    inspection = run_alone(executor, Inspect(config.workload(home)))
    assert isinstance(inspection, PreparedData)

    specs = TrialSpecs(config, home, inspection)
    held = ExitStack()
    if engine.database:
        held.enter_context(one_writer(home, config.name))
        study = open_revision(config, specs.fingerprint, home.studies_db)[0]
    else:
        study = open_study(config, specs.fingerprint, None)
    tracker = Tracker(home, config, inspection) if engine.tracked else Untracked()
    ended: list[float] = []
    sweep_mb: list[float] = []
    host_mb: list[float] = []
    host = executor._host.pid if isinstance(executor, LocalExecutor) else None

    class Watch(Silent):
        def trial_finished(self, number: int, result: TrialResult, finished: int, *, is_best: bool) -> None:
            ended.append(time.perf_counter() - began)
            sweep_mb.append(resident_mb("self"))
            host_mb.append(resident_mb(str(host)) if host else 0.0)

    meter = Meter(Budget(), Spent(), time.time)
    sweep = SweepContext(specs, study, tracker, executor, Watch(), Slots(2, 1), meter)
    controller = SearchController(sweep, Proposals(config, study))
    began = time.perf_counter()
    TrialScheduler(sweep).run(controller)
    executor.close()
    study.close()
    held.close()
    return Measured(ended, sweep_mb, host_mb, peak_rss_mb())


def resident_mb(pid: str) -> float:
    return int(Path("/proc", pid, "statm").read_text().split()[1]) * 4096 / (1 << 20)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(asdict(run(Engine(**json.loads(sys.argv[1])), Path(scratch)))))
