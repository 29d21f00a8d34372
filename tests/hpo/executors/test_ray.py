"""Sweeps on the nodes of a Ray cluster that are killed, leave and join; files that go there and come back."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from functools import partial
from importlib import metadata

import pytest

import hpo.commands.sweep
from hpo.cli.main import main
from hpo.commands.show import read_sweep
from hpo.commands.sweep import run_sweep
from hpo.errors import ClusterError
from hpo.executors.inline import InlineExecutor
from hpo.executors.ray.inputs import HOME_VARIABLE
from hpo.paths import Home
from hpo.progress_view import Silent
from tests.hpo.builders import write_sweep
from tests.hpo.executors import dying
from tests.hpo.executors.driving import (
    HERE,
    ends_of,
    last_of,
    next_event,
    reports_of,
    run_to_end,
    trial,
    until,
    wait_for,
    workload,
)
from tests.hpo.executors.nodes import left_behind, mortal_cluster
from trainers.host import fake
from trainers.protocol.events import Evaluation, Failed, Loaded, Resumed, TrialResult
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import Load

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("ray")]
TRIALS = 6
CONFIG = {
    "name": "sweep",
    "search_strategy": {"type": "random", "num_trials": TRIALS},
    "search_space": {"learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}},
    "training": {"max_examples": 100, "evaluations": 3},
    "pruner": {"type": "none"},
    "promote": False,
}

SWEEP = """
import sys
from pathlib import Path
from hpo.commands.sweep import run_sweep
from hpo.paths import Home
file, home, address = sys.argv[1:]
run_sweep(Path(file), Home(Path(home)), worker="dying", executor="ray", address=address)
"""


class Said(Silent):
    """Keeps what a person would see."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """What trials kill; nodes that join afterwards know it."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "node"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parents[2])]))

    def write(kills, pause_s=0.1):
        (tmp_path / "marks").mkdir()
        text = json.dumps({"marks": str(tmp_path / "marks"), "kills": kills, "pause_s": pause_s})
        monkeypatch.setenv(dying.PLAN, text)

    return write


@pytest.fixture
def nodes(cluster, plan):
    """The cluster without its usual node, so that a test decides which there are."""
    cluster.remove_all()
    yield cluster
    cluster.remove_all()


def results_of(summary):
    return {trial["number"]: (trial["value"], trial["curve"]) for trial in summary.to_json()["trials"]}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, mlflow_database):
    """The sweep on this machine, and its file: what the fake trainer computes depends on where the data lies."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "home").mkdir()
    shutil.copy(mlflow_database, folder / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(dying.PLAN, json.dumps({"marks": str(folder), "kills": {}, "pause_s": 0.0}))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parents[2])]))
        file = write_sweep(folder, **CONFIG)
        return run_sweep(file, Home(folder / "home"), jobs=2, worker="dying"), file


def test_what_a_trial_wrote_is_here_before_its_event(on_ray, tmp_path, plan):
    executor = on_ray("trainers.host.fake")
    request = trial(tmp_path / "0")
    paths = TrialPaths(tmp_path / "0")
    request_id = executor.submit(request)
    until(executor, Evaluation)
    assert paths.rows(0).read_bytes().startswith(b"\x93NUMPY")
    assert json.loads((paths.checkpoints / "state.json").read_text())["is_judged"] is False
    executor.reply(request_id, 0, "go")
    until(executor, Evaluation)
    executor.kill(request_id)
    ends_of(executor, request_id, verdict=None)
    [events] = run_to_end(executor, request)
    assert isinstance(reports_of(events)[0], Resumed)
    assert reports_of(events)[-1] == last_of(InlineExecutor(fake.work), trial(tmp_path / "1"))


def test_the_current_folder_takes_no_package_s_place_on_a_node(on_ray, tmp_path, monkeypatch):
    """Ray has all of its processes import from there."""
    (tmp_path / "trainers.py").write_text("raise ImportError('of somebody else')")
    monkeypatch.chdir(tmp_path)
    assert isinstance(last_of(on_ray("trainers.host.fake"), trial(tmp_path / "0")), TrialResult)


def test_one_node_loads_and_answers_before_it_trains(on_ray, tmp_path):
    executor = on_ray("trainers.host.fake")
    assert executor.places() == ()
    assert isinstance(last_of(executor, Load(workload(), None)), Loaded)
    [place] = executor.places()
    assert (place.cores, place.gpus) == (2, 0)
    assert place.environment.packages["torch"]
    request_id = executor.submit(trial(tmp_path / "0"), place.id)
    assert isinstance(ends_of(executor, request_id)[0][-2].report, TrialResult)
    gone = executor.submit(trial(tmp_path / "1"), "no such node")
    assert next_event(executor) == (gone, Failed("interrupted", "its node left before it began"))


def test_the_process_between_sweep_and_ray_is_replaced_when_it_ends(on_ray, tmp_path):
    executor = on_ray("trainers.host.fake")
    assert isinstance(last_of(executor, Load(workload(), None)), Loaded)
    request_id = executor.submit(trial(tmp_path / "0"))
    until(executor, Evaluation)
    os.kill(executor._cluster._host.pid, signal.SIGKILL)
    [events] = ends_of(executor, request_id, verdict=None)
    assert events[-1] == Failed("interrupted", "the process that speaks to Ray ended unexpectedly")
    [events] = run_to_end(executor, trial(tmp_path / "0"))
    assert isinstance(reports_of(events)[0], Resumed)
    assert reports_of(events)[-1] == last_of(InlineExecutor(fake.work), trial(tmp_path / "1"))


def test_a_cluster_that_is_not_there_is_one_plain_error(tmp_path):
    file, home = write_sweep(tmp_path, **CONFIG), Home(tmp_path / "home")
    with pytest.raises(ClusterError, match=r"no Ray cluster answers at 127\.0\.0\.1:9 .*ray start --head"):
        run_sweep(file, home, worker="trainers.host.fake", executor="ray", address="127.0.0.1:9")
    assert not (tmp_path / "home").exists()


def test_a_sweep_that_loses_the_head_says_so_and_goes_on_in_another_cluster(
    cluster, plan, tmp_path, undisturbed, home_with_store, monkeypatch, capsys
):  # fmt: skip
    plan({}, pause_s=0.5)
    wanted, file = undisturbed
    home = Home(home_with_store)
    monkeypatch.setattr(hpo.commands.sweep, "run_sweep", partial(run_sweep, worker="dying"))
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "2")  # of a minute: Ray waits so long for the head
    with mortal_cluster() as (address, head):

        def behead():
            wait_for((tmp_path / "marks" / "trial-2").exists, within_s=200)
            os.kill(head, signal.SIGKILL)

        threading.Thread(target=behead).start()
        command = ["hpo", "--home", str(home.dir), "sweep", str(file), "--executor", "ray", "--address", address]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert ended.value.code == 1
        lost = "error: the Ray cluster was lost in the middle of the sweep: no Ray cluster answers at "
        assert said.startswith(lost + address)
        assert said.endswith("; then the same command continues the sweep\n")
        assert said.count("\n") == 1
        wait_for(lambda: not left_behind(str(tmp_path)), within_s=20)
    finished = read_sweep(home, "sweep").trials[:2]
    assert {trial.state for trial in finished} == {"complete"}
    assert {trial.state for trial in read_sweep(home, "sweep").trials} <= {"complete", "interrupted"}
    monkeypatch.delenv("RAY_gcs_rpc_server_reconnect_timeout_s")
    cluster.with_usual_node()
    summary = run_sweep(file, home, worker="trainers.host.fake", executor="ray", address=cluster.address)
    assert summary.trials[:2] == finished
    assert results_of(summary) == results_of(wanted)
    assert summary.champion.number == wanted.champion.number


def test_trials_fit_into_the_memory_of_nodes_as_measured_there(cluster, tmp_path, monkeypatch, home_with_store):
    """A trial needs 100 MB, 10 MB a row, of which 16 go together, and 1 MB a rank."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parents[2])]))
    cluster.with_usual_node()
    ranks = {"lora_r": {"type": "choice", "values": [8, 16, 1024]}}
    file = write_sweep(
        tmp_path, **{**CONFIG, "search_strategy": {"type": "grid"}, "search_space": ranks, "trials": {"memory_gb": 0.2}}
    )
    said = Said()
    summary = run_sweep(
        file, Home(home_with_store), worker="measured", view=said, executor="ray", address=cluster.address
    )
    assert [(trial.params, trial.state) for trial in summary.trials] == [({"lora_r": r}, "complete") for r in (8, 16)]
    assert [point.params for point in summary.left_out.points] == [{"lora_r": 1024}]
    settings = [json.loads(spec.read_text())["settings"] for spec in home_with_store.glob("**/spec.json")]
    assert {s["micro_batch_size"] for s in settings} == {4}
    assert any(line.startswith("memory: 0.2 GB for 1 trial at a time") for line in said.lines)


def test_a_node_whose_disk_is_full_is_not_used_any_more(on_ray, tmp_path):
    said = []
    executor = on_ray("misbehaving", shared_home=True, say=said.append)
    failed = last_of(executor, trial(tmp_path / "0", source="finds_the_disk_full"))
    assert failed.cause == "interrupted"
    assert re.match(r"node .* left: its disk is full \(OSError: .*No space left", failed.message)
    assert re.match(r"node .* is not used: its disk is full .*; make room there", said[0])
    with pytest.raises(ClusterError, match=r"no node can train: .* its disk is full"):
        until(executor, Evaluation)


def test_a_node_with_another_version_is_not_used(nodes, on_ray, tmp_path):
    other = tmp_path / "other" / "numpy-0.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.9\n")
    nodes.remove_all()
    nodes.add(PYTHONPATH=os.pathsep.join([str(other.parent), str(HERE.parents[2])]))
    executor = on_ray("trainers.host.fake")
    numpy = metadata.version("numpy")
    with pytest.raises(ClusterError, match=rf"no node can train: .*numpy 0\.9, here {numpy}; install the same there"):
        until(executor, Evaluation)


def test_kills_of_every_kind_change_nothing(nodes, plan, tmp_path, undisturbed, home_with_store):
    plan({"1": "host", "2": "actor", "4": "raylet"})
    nodes.add(count=2)
    said = Said()
    wanted, file = undisturbed
    home = Home(home_with_store)
    summary = run_sweep(file, home, worker="dying", view=said, executor="ray", address=nodes.address)
    assert results_of(summary) == results_of(wanted)
    assert summary.champion.number == wanted.champion.number
    for number, lost in ((1, "its trial host ended"), (2, "actor was killed"), (4, "left the cluster")):
        assert any(line.startswith(f"trial {number}: interrupted (node ") and lost in line for line in said.lines)
        again = [int(index) for index in (tmp_path / "marks" / f"trial-{number}").read_text().split()]
        assert again in ([0, 1, 0, 1, 2], [0, 1, 1, 2]), "more than one evaluation was lost"
    wait_for(lambda: not left_behind(str(tmp_path)), within_s=10)


def test_a_killed_sweep_leaves_nobody_and_goes_on_on_a_node_that_joins(
    nodes, plan, tmp_path, undisturbed, home_with_store
):  # fmt: skip
    plan({}, pause_s=0.3)
    [first] = nodes.add()
    wanted, file = undisturbed
    command = [sys.executable, "-c", SWEEP, str(file), str(home_with_store), nodes.address]
    sweep = subprocess.Popen(command)
    wait_for((tmp_path / "marks" / "trial-1").exists, within_s=60)
    sweep.kill()
    sweep.wait()
    wait_for(lambda: not left_behind(str(tmp_path)), within_s=10)
    sweep = subprocess.Popen(command)
    wait_for((tmp_path / "marks" / "trial-3").exists, within_s=60)
    nodes.remove(first)
    nodes.add()
    assert sweep.wait(timeout=120) == 0
    summary = read_sweep(Home(home_with_store), "sweep")
    assert results_of(summary) == results_of(wanted)
    assert summary.champion.number == wanted.champion.number
