"""A sweep on a disk that fills up: it says so, and goes on when there is room again.

The disk is a small tmpfs: mounting one needs root. The trainer is the fake one; everything else is the command itself.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys

import optuna
import pytest

import hpo.commands.sweep
from hpo.cli.main import main
from hpo.paths import Home
from hpo.tracking import mlflow_tracker as tracking
from tests.hpo.builders import write_sweep
from tests.hpo.executors.driving import HERE
from tests.hpo.executors.filling import PLAN, fill

DISK_MB = 24
TRIALS, EVALUATIONS = 3, 3
CONFIG = {
    "name": "sweep",
    "search_strategy": {"type": "random", "num_trials": TRIALS},
    "search_space": {"learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}},
    "training": {"max_examples": 100, "evaluations": EVALUATIONS},
    "pruner": {"type": "none"},
    "promote": False,
}


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory, mlflow_database):
    """A home whose databases have their tables, and nothing in them: making them takes seconds."""
    home = Home(tmp_path_factory.mktemp("store") / "home")
    home.dir.mkdir()
    shutil.copy(mlflow_database, home.dir)
    optuna.storages.RDBStorage(f"sqlite:///{home.studies_db}").engine.dispose()
    return home


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError as error:
        pytest.skip(f"no small disk: {error}")
    if mounted.returncode:
        pytest.skip(f"no small disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys, empty_store):
    """Runs `hpo ARGUMENTS` on a home; returns exit code, standard output and standard error."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parents[2])]))
    monkeypatch.setattr(
        hpo.commands.sweep, "run_sweep", functools.partial(hpo.commands.sweep.run_sweep, worker="filling")
    )

    def run(home, *arguments, at=(-1, -1), leave_kb=0, weights_kb=64):
        if not home.exists():
            shutil.copytree(empty_store.dir, home)
        plan = {"disk": str(home.parent), "at": list(at), "leave_kb": leave_kb, "weights_kb": weights_kb}
        monkeypatch.setenv(PLAN, json.dumps(plan))
        monkeypatch.setattr(sys, "argv", ["hpo", "--home", str(home), *arguments])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return str(write_sweep(tmp_path_factory.mktemp("given"), **CONFIG))


def assert_complete_once(command, home):
    """Every trial is there once and whole, in the study, on disk and in MLflow."""
    _, shown, _ = command(home, "show", "sweep", "--json")
    shown = json.loads(shown)
    assert shown["state"] == "complete"
    assert [(t["number"], t["state"]) for t in shown["trials"]] == [(n, "complete") for n in range(TRIALS)]
    assert all(len(t["curve"]) == EVALUATIONS for t in shown["trials"])
    assert len(list((home / "sweeps" / "sweep" / "trials").glob("*/result.json"))) == TRIALS
    client = tracking.client(Home(home))
    experiment = client.get_experiment_by_name("sweep")
    runs = client.search_runs([experiment.experiment_id])
    children = {run.data.tags["hpo.trial"]: run for run in runs if "hpo.trial" in run.data.tags}
    assert len(runs) == TRIALS + 1 == len(children) + 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    for trial in shown["trials"]:
        run = children[str(trial["number"])]
        history = client.get_metric_history(run.info.run_id, "validation/f1_macro")
        assert [m.value for m in history] == pytest.approx([value for _, value in trial["curve"]])


def assert_says_so(code, out, err):
    assert code == 1, out + err
    assert "Traceback" not in out + err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    # As the kernel says it, or as SQLite does, whichever met it first.
    assert "no space left on device" in err.lower() or "disk is full" in err


@pytest.mark.parametrize(
    ("jobs", "at", "leave_kb", "weights_kb", "says"),
    [
        pytest.param("2", (1, 1), 0, 64, "", id="in the middle of a trial"),
        pytest.param("2", (1, 2), 100, 64, "", id="at the end of a trial"),
        pytest.param("1", (0, 2), 700, 1024, "make room, and the same command continues", id="when a trainer writes"),
    ],
)
def test_a_disk_that_fills_up(disk, command, file, jobs, at, leave_kb, weights_kb, says):
    """The sweep says so, says so again while there is no room, and then goes on."""
    sweep = functools.partial(command, disk / "home", "sweep", file, "--jobs", jobs, weights_kb=weights_kb)
    ended = sweep(at=at, leave_kb=leave_kb)
    assert (disk / "ballast").exists()
    assert_says_so(*ended)
    assert says in ended[2]
    if not leave_kb:
        assert_says_so(*sweep())
    (disk / "ballast").unlink()
    code, out, err = sweep()
    assert code == 0, out + err
    assert_complete_once(command, disk / "home")


def test_a_disk_that_is_full_from_the_start(disk, command, file, empty_store):
    shutil.copytree(empty_store.dir, disk / "home")
    fill(disk, 0)
    assert_says_so(*command(disk / "home", "sweep", file))
    (disk / "ballast").unlink()
    code, out, err = command(disk / "home", "sweep", file)
    assert code == 0, out + err
    assert_complete_once(command, disk / "home")
