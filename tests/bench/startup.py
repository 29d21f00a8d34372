"""What a person waits for: the command line, and a trial's first step."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.tables import Row

ROOT = Path(__file__).parents[2]
REPEATS = 5


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        first_step_s = first_step(Path(folder))
    return [
        Row("hpo --help", f"{median(help_command):.2f} s", "0.15 s"),
        Row("python -c pass, for comparison", f"{median(empty_python):.2f} s"),
        Row("trial start to first optimizer step, warm (MiniLM)", f"{first_step_s:.2f} s", "1.5 s"),
        Row("the same in a fresh process (imports, model)", f"{fresh_process():.2f} s"),
    ]


def median(run: Callable[[], None]) -> float:
    """Median seconds of `REPEATS` runs after one that does not count."""
    run()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def help_command() -> None:
    hpo = Path(sys.executable).with_name("hpo")
    subprocess.run([hpo, "--help"], check=True, stdout=subprocess.DEVNULL)


def empty_python() -> None:
    subprocess.run([sys.executable, "-c", "pass"], check=True)


def first_step(folder: Path) -> float:
    """Median seconds from submitting a trial to its first step, the base model resident in the host."""
    from hpo.config.file import load_config
    from hpo.config.trial_specs import TrialSpecs
    from hpo.demo.fetch import fetch
    from hpo.executors.local import LocalExecutor
    from hpo.paths import Home
    from hpo.trials.calls import run_alone
    from trainers.protocol.events import PreparedData, Step
    from trainers.protocol.requests import Inspect, Load, Train

    home = Home(ROOT / "mlruns")
    for name in ("all-MiniLM-L6-v2", "vader-movie"):
        fetch(name, home.dir, say=print)
    config = load_config(ROOT / "search_spaces/movie-sentiment.yaml", home)
    executor = LocalExecutor(folder / "host.log")
    try:
        inspection = run_alone(executor, Inspect(config.workload(home)))
        assert isinstance(inspection, PreparedData)
        run_alone(executor, Load(config.workload(home), inspection))
        times = []
        for number in range(REPEATS):
            paths = Home(folder).sweep("bench").trial(number)
            spec = TrialSpecs(config, home, inspection).spec(number, config.baseline(), paths)
            began = time.perf_counter()
            request_id = executor.submit(Train((spec,), inspection))
            while not isinstance(getattr((executor.wait() or (0, None))[1], "report", None), Step):
                pass
            times.append(time.perf_counter() - began)
            executor.kill(request_id)
            executor.wait()
    finally:
        executor.close()
    return statistics.median(times)


def fresh_process() -> float:
    """What every trial would pay without a host: torch, transformers, peft and the weights."""
    model = ROOT / "mlruns/cache/all-MiniLM-L6-v2"
    code = (
        "import trainers.training.loop\n"
        "from transformers import AutoModelForSequenceClassification as M\n"
        f"M.from_pretrained({str(model)!r})"
    )
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began
