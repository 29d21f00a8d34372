"""The process that `engine.py` measures: `python -m tests.bench.measured_sweep JSON` prints its measurements."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hpo.commands.sweep import run_sweep  # noqa: F401  # imported so that its memory counts
from hpo.config.budget import Budget, Meter, Spent
from hpo.config.file import load_config
from hpo.config.sweep_config import SweepConfig
from hpo.config.trial_specs import TrialSpecs
from hpo.executors.inline import InlineExecutor
from hpo.executors.local import LocalExecutor
from hpo.paths import Home
from hpo.progress_view import Silent
from hpo.search.controller import SearchController
from hpo.search.proposals import Proposals
from hpo.study.one_writer import one_writer
from hpo.study.revision import open_revision
from hpo.study.store import open_study
from hpo.study.study import Study
from hpo.tracking.base import Untracked
from hpo.tracking.mlflow_tracker import Tracker
from hpo.trials.calls import run_alone
from hpo.trials.context import SweepContext
from hpo.trials.scheduler import TrialScheduler
from hpo.trials.slots import Slots
from tests.bench.engine import Engine, Measured, write_sweep
from trainers.host import fake
from trainers.memory import peak_rss_mb
from trainers.protocol.events import PreparedData, TrialResult
from trainers.protocol.requests import Inspect


@dataclass
class Watch(Silent):
    """Notes when each trial ended (seconds after the start), and what was resident then."""

    host: int | None
    began: float = 0.0
    ended_s: list[float] = field(default_factory=list)
    sweep_mb: list[float] = field(default_factory=list)
    host_mb: list[float] = field(default_factory=list)

    def trial_finished(self, number: int, result: TrialResult, finished: int, *, is_best: bool) -> None:
        self.ended_s.append(time.perf_counter() - self.began)
        self.sweep_mb.append(resident_mb("self"))
        self.host_mb.append(resident_mb(str(self.host)) if self.host else 0.0)


def run(engine: Engine, folder: Path) -> Measured:
    home = Home(folder / "home")
    home.dir.mkdir()
    config = load_config(write_sweep(folder, engine), home)
    executor = LocalExecutor(folder / "host.log", "trainers.host.fake") if engine.host else InlineExecutor(fake.work)
    inspection = run_alone(executor, Inspect(config.workload(home)))
    assert isinstance(inspection, PreparedData)
    specs = TrialSpecs(config, home, inspection)
    watch = Watch(executor._host.pid if isinstance(executor, LocalExecutor) else None)
    with ExitStack() as held:
        study = _opened(engine, config, specs, home, held)
        tracker = Tracker(home, config, inspection) if engine.tracked else Untracked()
        meter = Meter(Budget(), Spent(), time.time)
        sweep = SweepContext(specs, study, tracker, executor, watch, Slots(2, 1), meter)
        controller = SearchController(sweep, Proposals(config, study))
        watch.began = time.perf_counter()
        TrialScheduler(sweep).run(controller)
        executor.close()
        study.close()
    return Measured(watch.ended_s, watch.sweep_mb, watch.host_mb, peak_rss_mb())


def _opened(engine: Engine, config: SweepConfig, specs: TrialSpecs, home: Home, held: ExitStack) -> Study:
    if not engine.database:
        return open_study(config, specs.fingerprint, None)
    held.enter_context(one_writer(home, config.name))
    return open_revision(config, specs.fingerprint, home.studies_db)[0]


def resident_mb(pid: str) -> float:
    return int(Path("/proc", pid, "statm").read_text().split()[1]) * 4096 / (1 << 20)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(asdict(run(Engine(**json.loads(sys.argv[1])), Path(scratch)))))
