"""`hpo stop`: a running sweep ends in order, and goes on where it was."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import hpo.commands.stop
from hpo.commands.show import read_sweep
from hpo.commands.stop import stop_sweep
from hpo.errors import SweepError, UsageError
from hpo.lock import this_machine
from hpo.paths import Home
from tests.hpo.builders import Sweep

ROOT = Path(__file__).parents[3]
HOLDER = """
import signal, sys, time
from pathlib import Path
from hpo.lock import sweep_lock
heard = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: heard.append(1))
with sweep_lock(Path(sys.argv[1])):
    print("held", flush=True)
    while len(heard) < int(sys.argv[2]):
        time.sleep(0.01)
sys.exit(len(heard))
"""


@pytest.fixture
def holder(tmp_path):
    """Starts a process that holds a sweep's lock until it has heard so many signals, and exits with their number."""
    started = []

    def start(name, ends_at):
        lock = Home(tmp_path).sweep(name).lock
        command = [sys.executable, "-c", HOLDER, str(lock), str(ends_at)]
        started.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("now", "signals"), [(False, 1), (True, 2)])
def test_a_running_sweep_is_asked_once_and_told_twice_to_hurry(tmp_path, holder, now, signals):
    process = holder("s", ends_at=signals)
    assert stop_sweep(Home(tmp_path), "s", now=now) == "s is stopped; hpo sweep continues it"
    assert process.wait(timeout=10) == signals


def test_it_hurries_though_it_had_no_turn_between_the_two(tmp_path, holder):
    process = holder("s", ends_at=2)
    process.send_signal(signal.SIGSTOP)
    threading.Timer(1.0, process.send_signal, [signal.SIGCONT]).start()
    assert stop_sweep(Home(tmp_path), "s", now=True) == "s is stopped; hpo sweep continues it"
    assert process.wait(timeout=10) == 2


def test_a_sweep_that_does_not_stop_is_an_error_that_names_its_process(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(hpo.commands.stop, "STOPS_WITHIN_S", 0.3)
    process = holder("s", ends_at=99)
    with pytest.raises(SweepError, match=rf"process {process.pid}\) has not stopped .*; hpo stop s --now ends it"):
        stop_sweep(Home(tmp_path), "s")


def test_a_process_of_another_machine_or_container_is_not_signalled(tmp_path, holder):
    """Its number is some other process here."""
    process, lock = holder("s", ends_at=1), Home(tmp_path).sweep("s").lock
    assert lock.read_text() == f"{process.pid}\n{this_machine()}\n{socket.gethostname()}\n"
    lock.write_text(f"{process.pid}\nanother boot\ngpu7\n")
    with pytest.raises(UsageError, match=rf"'s' runs elsewhere: process {process.pid} on gpu7; stop it there"):
        stop_sweep(Home(tmp_path), "s")
    assert process.poll() is None


def test_only_a_sweep_that_runs_can_be_stopped(tmp_path, database):
    home = Home(tmp_path / "home")
    with pytest.raises(UsageError, match=r"no sweep 'nope'; there are none yet"):
        stop_sweep(home, "nope")
    Sweep(tmp_path, database, name="there").open()
    with pytest.raises(UsageError, match="sweep 'there' is not running"):
        stop_sweep(home, "there")
    with pytest.raises(UsageError, match=r"no sweep 'nope'; there are: there"):
        stop_sweep(home, "nope")
    with pytest.raises(UsageError, match="is not a sweep name"):
        stop_sweep(home, "../there")


@pytest.fixture
def start(home):
    """Runs `hpo sweep FILE` as a process of its own."""
    started = []

    def start(path):
        command = [
            sys.executable,
            "-m",
            "hpo",
            "--home",
            str(home),
            "sweep",
            str(path),
            "--jobs",
            "1",
            "--threads",
            "1",
        ]
        started.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_stopped_sweep_is_interrupted_and_goes_on_from_its_checkpoint(write_yaml, home_with_store, start):
    training = {"max_examples": 1600, "evaluations": 8, "learning_rate": 1e-2, "max_length": 32,
                "early_stopping": {"patience": 99}}  # fmt: skip
    path = write_yaml(training=training, search_space={}, promote=False)
    process = start(path)
    home = home_with_store
    checkpoints = home / "sweeps/tiny-encoder/trials/0000/checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("[0-9]*")):
        assert time.monotonic() < deadline, "no checkpoint"
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    assert "is stopped" in stop_sweep(Home(home), "tiny-encoder")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    stopped = read_sweep(Home(home), "tiny-encoder").to_json()
    assert stopped["state"] == "interrupted"
    [trial] = stopped["trials"]
    assert (trial["state"], len(trial["attempts"])) == ("interrupted", 1)
    assert json.dumps(stopped, allow_nan=False)

    process = start(path)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    finished = read_sweep(Home(home), "tiny-encoder").to_json()
    [trial] = finished["trials"]
    assert (finished["state"], trial["number"], trial["state"], trial["run_id"]) == (
        "complete", 0, "complete", stopped["trials"][0]["run_id"],
    )  # fmt: skip
    assert trial["resumed_from"] > 0
    assert len(trial["curve"]) == 8
