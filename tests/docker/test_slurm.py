"""`docker/slurm/`: the scripts run here; Slurm's commands, Ray and the sweep are stand-ins that write down calls."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpo.trials.scheduler import PAUSE_WITHIN_S
from tests.docker.commands import assert_is_a_command
from tests.docker.compose import FOLDER

SWEEP = """#!/bin/bash
echo "hpo $*" >> calls
trap 'sleep 0.3; echo "hpo was paused" >> calls; exit 130' TERM
until [ "$(grep --count ^token calls)" = "$NODES" ]; do sleep 0.02; done
[ -z "$ENDS_WITH" ] || exit "$ENDS_WITH"
touch sweeps
while :; do sleep 0.02; done
"""
RAY = """#!/bin/bash
echo "ray $*" >> calls
[ "$1" = start ] || exit 0
trap 'echo "a node ended" >> calls; exit' TERM
stat --format='token %a' "$RAY_AUTH_TOKEN_PATH" >> calls
while :; do sleep 0.02; done
"""
SRUN = """#!/bin/bash
echo "srun $*" >> calls
while [[ $1 = --* ]]; do shift; done
[ "$1" = hostname ] || echo $$ >> nodes
exec "$@"
"""
SCONTROL = """#!/bin/bash
echo "scontrol $*" >> calls
[ "$1" != show ] || printf 'node1\\nnode2\\nnode3\\n'
"""
HOSTNAME = "#!/bin/sh\necho 10.0.0.1 10.0.0.2\n"


@dataclass
class Job:
    """A batch script under way; Slurm's own commands come before those of this machine."""

    folder: Path

    def start(self, script: str, ends_with: int | None = None) -> subprocess.Popen[bytes]:
        bin_folder = self.folder / "venv" / "bin"
        bin_folder.mkdir(parents=True)
        programs = {"hpo": SWEEP, "ray": RAY, "srun": SRUN, "scontrol": SCONTROL, "hostname": HOSTNAME}
        for name, text in programs.items():
            (bin_folder / name).write_text(text)
            (bin_folder / name).chmod(0o755)
        env = {
            "PATH": "/usr/bin:/bin", "HPO_VENV": str(self.folder / "venv"), "SLURM_JOB_ID": "77", "HPO_HOME": "home",
            "SLURM_CPUS_PER_TASK": "16", "SLURM_JOB_NODELIST": "node[1-3]", "SLURM_GPUS_ON_NODE": "4",
            "NODES": "2" if script == "ray.sbatch" else "0", "ENDS_WITH": "" if ends_with is None else str(ends_with),
        }  # fmt: skip
        return subprocess.Popen(
            ["bash", FOLDER / "slurm" / script, "my.yaml"], cwd=self.folder, env=env, process_group=0
        )

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    def nodes(self) -> list[int]:
        """The first process of each node, by its id."""
        file = self.folder / "nodes"
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    def wait_for_sweep(self) -> None:
        end = time.monotonic() + 60
        while not (self.folder / "sweeps").exists():
            assert time.monotonic() < end, self.calls()
            time.sleep(0.01)


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


@pytest.mark.parametrize("script", ["sweep.sbatch", "ray.sbatch"])
def test_before_its_time_is_over_a_sweep_is_paused_and_queued_again(job, script):
    process = job.start(script)
    job.wait_for_sweep()
    os.kill(process.pid, signal.SIGUSR1)  # Slurm's, to the batch script alone: --signal=B:USR1@180
    assert process.wait(60) == 130
    calls = job.calls()
    assert calls.index("hpo was paused") < calls.index("scontrol requeue 77")


@pytest.mark.parametrize("script", ["sweep.sbatch", "ray.sbatch"])
def test_a_cancelled_job_is_not_queued_again(job, script):
    process = job.start(script)
    job.wait_for_sweep()
    os.killpg(process.pid, signal.SIGTERM)  # `scancel` of some Slurms: to all that the job has started
    assert process.wait(60) != 0
    calls = job.calls()
    assert calls.count("hpo was paused") == 1
    assert "scontrol requeue 77" not in calls


@pytest.mark.parametrize("script", ["sweep.sbatch", "ray.sbatch"])
def test_a_cancelled_sweep_is_paused_before_its_nodes_end(job, script):
    """Where Slurm tracks processes by control groups, it tells only the script and the first process of each node."""
    process = job.start(script)
    job.wait_for_sweep()
    for pid in (process.pid, *job.nodes()):
        os.kill(pid, signal.SIGTERM)
    assert process.wait(60) == 130
    calls = job.calls()
    assert calls.count("hpo was paused") == 1
    assert "scontrol requeue 77" not in calls
    assert calls.count("a node ended") == len(job.nodes()) == (2 if script == "ray.sbatch" else 0)
    assert "a node ended" not in calls[: calls.index("hpo was paused")]


@pytest.mark.parametrize("script", ["sweep.sbatch", "ray.sbatch"])
@pytest.mark.parametrize("code", [0, 2, 3])
def test_a_sweep_that_has_ended_is_not_queued_again(job, script, code):
    assert job.start(script, ends_with=code).wait(60) == code
    assert "scontrol requeue 77" not in job.calls()


def test_a_cluster_of_all_nodes_is_started_and_ended(job):
    assert job.start("ray.sbatch", ends_with=0).wait(60) == 0
    calls = job.calls()
    head, others = (call.split() for call in calls if call.startswith("ray start"))
    if "--head" in others:
        head, others = others, head
    assert {"--head", "--include-dashboard=false", "--node-ip-address=10.0.0.1", "--port=20077"} <= set(head)
    assert "--address=10.0.0.1:20077" in others
    assert {"--num-cpus=16", "--num-gpus=4", "--block"} <= set(head) & set(others)
    assert "hpo sweep my.yaml --executor ray --address 10.0.0.1:20077" in calls
    assert any(re.match(r"srun --nodes=1 --ntasks=1 --nodelist=node1 bash -c .* ray start", call) for call in calls)
    assert any(re.match(r"srun --nodes=2 --ntasks=2 --exclude=node1 bash -c .* ray start", call) for call in calls)
    assert calls.count("token 600") == calls.count("a node ended") == 2
    assert not list((job.folder / "home").glob(".ray-token*"))


def test_the_commands_of_the_scripts_exist():
    for words in ("hpo sweep my.yaml", "hpo sweep my.yaml --executor ray --address 10.0.0.1:20077"):
        assert_is_a_command(shlex.split(words))
    assert_is_a_command(["ray", "start", "--block", "--disable-usage-stats", "--num-cpus=1", "--num-gpus=0", "--head",
                         "--include-dashboard=false", "--node-ip-address=10.0.0.1", "--port=20077",
                         "--temp-dir=/tmp/ray"])  # fmt: skip
    assert_is_a_command(["ray", "health-check", "--address", "10.0.0.1:20077"])


def test_whoever_stops_a_sweep_gives_its_trials_the_time_that_they_have_to_pause():
    """And the sweep some more, to write down how it stands."""
    found = {
        "slurm": r"--signal=B:USR1@(\d+)",
        "kubernetes": r"terminationGracePeriodSeconds: (\d+)",
        "compose.yaml": r"stop_grace_period: (\d+)s",
    }
    for place, pattern in found.items():
        files = [FOLDER / place] if place.endswith(".yaml") else sorted((FOLDER / place).iterdir())
        seconds = [int(number) for file in files for number in re.findall(pattern, file.read_text())]
        assert seconds, place
        assert min(seconds) >= PAUSE_WITHIN_S + 30, place
