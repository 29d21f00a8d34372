"""Two nodes of one core against one on a fixed queue; a warm trial's first step through Ray; what kills leave behind.

All nodes are on this machine, each with a folder of its own, as machines without a shared file system have.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from hpo.executors.ray.inputs import HOME_VARIABLE
from hpo.paths import Home
from hpo.trials.timeline_file import timeline_or_why
from tests.bench import startup
from tests.bench.makespan import EVALUATIONS, POINTS, prepared_home, sweep
from tests.bench.tables import Row
from tests.hpo.executors.nodes import TestCluster, left_behind

ROOT = Path(__file__).parents[2]
EXAMPLES = 480
"""Of a trial: one core trains eight of them in some minutes."""
FIRST_STEPS = 5


def rows(examples: int) -> list[Row]:
    """`examples` per trial of the queue. One line that says what to do where Ray is not installed."""
    if find_spec("ray") is None:
        return [Row("Ray", "left out: pip install ray")]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ[HOME_VARIABLE] = str(folder / "node")  # by which `left_behind` knows all processes
        with TestCluster() as cluster:
            cluster.add()
            first_s, left_s = first_step(cluster, folder)
            here_s = startup.first_step(folder)
            one_s = queue(cluster, folder / "one", examples)
            cluster.add()
            two_s = queue(cluster, folder / "two", examples)
    return [
        Row("8 MiniLM points on one node of one core", f"{one_s:.0f} s"),
        Row("the same on two nodes", f"{two_s:.0f} s"),
        Row("two nodes against one", f"{one_s / two_s:.2f} times sooner", ">= 1.8"),
        Row("trial start to first optimizer step through Ray, warm (MiniLM)", f"{first_s:.2f} s", "1 s"),
        Row("the same without Ray, a minute later", f"{here_s:.2f} s"),
        Row("kill -9 of the sweep's process to the last process gone", f"{left_s:.1f} s", "10 s"),
    ]


def queue(cluster: TestCluster, folder: Path, examples: int) -> float:
    """Seconds from the queue's first trial to the end of its last one."""
    home, file = prepared_home(folder), folder / "queue.yaml"
    file.write_text(json.dumps(sweep(POINTS, examples, EVALUATIONS, pruner={"type": "none"})))
    command = [sys.executable, "-m", "hpo", "--home", str(home), "sweep", str(file), "--threads", "1"]
    subprocess.run([*command, "--address", cluster.address], check=True, cwd=ROOT, stdout=sys.stderr)
    stints, _ = timeline_or_why(Home(home).sweep("makespan").timeline)
    return max(stint.ended for stint in stints) - min(stint.began for stint in stints)


def first_step(cluster: TestCluster, folder: Path) -> tuple[float, float]:
    """Median seconds from submitting a trial to its first step; and from a kill of the process that submits them to
    the end of the last process of it."""
    home = prepared_home(folder / "steps")
    command = [sys.executable, "-m", "tests.bench.machines", str(home), cluster.address]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    times = [float(process.stdout.readline()) for _ in range(FIRST_STEPS)]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    began = time.monotonic()
    while left_behind(str(folder)):
        time.sleep(0.05)
    return statistics.median(times), time.monotonic() - began


def steps_of(home_folder: Path, address: str) -> None:
    """Submit one trial after the other, print the seconds to each one's first step, then wait to be killed."""
    from hpo.config.file import load_config
    from hpo.config.trial_specs import TrialSpecs
    from hpo.executors.ray.executor import RayExecutor, settings_here
    from hpo.trials.calls import run_alone
    from trainers.protocol.events import PreparedData, Step
    from trainers.protocol.requests import Inspect, Load, Train

    home, log = Home(home_folder), home_folder / "steps" / "host.log"
    config = load_config(ROOT / "search_spaces/movie-sentiment.yaml", home)
    settings = settings_here(address, "trainers.host.dispatch", log, shared_home=False)
    executor = RayExecutor(settings, log)
    inspection = run_alone(executor, Inspect(config.workload(home)))
    assert isinstance(inspection, PreparedData)
    run_alone(executor, Load(config.workload(home), inspection))
    for number in range(FIRST_STEPS):
        spec = TrialSpecs(config, home, inspection).spec(number, config.baseline(), home.sweep("steps").trial(number))
        began = time.perf_counter()
        request_id = executor.submit(Train((spec,), inspection))
        while not isinstance(getattr((executor.wait() or (0, None))[1], "report", None), Step):
            pass
        print(time.perf_counter() - began, flush=True)
        if number < FIRST_STEPS - 1:
            executor.kill(request_id)
            executor.wait()
    time.sleep(3600)


if __name__ == "__main__":
    steps_of(Path(sys.argv[1]), sys.argv[2])
