"""Runs on a tracking server: the same as at home, each value once, whatever the server and the network do."""

from __future__ import annotations

import functools
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, RunTag, ViewType

import hpo.commands.sync as sync
import hpo.tracking.remote.live_copy
from hpo.cli.main import cli
from hpo.commands.sweep import run_sweep
from hpo.databases.sqlite import opened
from hpo.errors import UsageError
from hpo.paths import Home
from hpo.tracking.mlflow_deletion import delete_for_good
from hpo.tracking.mlflow_places import COPY_TAG, forget_params
from hpo.tracking.mlflow_store import client
from hpo.tracking.remote import process as remote_process
from hpo.tracking.remote.delivery import Delivery
from hpo.tracking.remote.ledger import Entry, opened_ledger
from hpo.tracking.remote.problems import OwnStore, Unavailable
from hpo.tracking.remote.server import VARIABLE, TrackingServer
from hpo.tracking.remote.source import LocalFile, RunSource
from hpo.tracking.remote.store import RemoteStore
from hpo.tracking.remote.text import Names
from tests.hpo.builders import RATE, Said, write_sweep
from tests.hpo.tracking.unsteady import self_signed, unsteady
from tests.ports import free_port

PASSWORD = "one/very secret@word"  # noqa: S105  # of a server that lives as long as these tests
IN_URL = "one%2Fvery%20secret%40word"
AUTH = """[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/users.db
admin_username = anna
admin_password = {password}
auth_cache_ttl_seconds = 60
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory, mlflow_database):
    """HOST:PORT of MLflow's own server, with basic auth."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(mlflow_database, folder / "mlflow.db")
    (folder / "auth.ini").write_text(AUTH.format(folder=folder, password=PASSWORD))
    command = [
        sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1",
        "--port", str(port := free_port()), "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination", (folder / "files").as_uri(),
    ]  # fmt: skip
    env = {
        **os.environ, "MLFLOW_AUTH_CONFIG_PATH": f"{folder}/auth.ini", "MLFLOW_FLASK_SERVER_SECRET_KEY": "of tests",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes more
    }  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", folder / "log")
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def _wait_for(url, log):
    for _ in range(2000):
        try:
            urllib.request.urlopen(url).close()  # noqa: S310  # a server of ours
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture
def login(server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)


@pytest.fixture(scope="module")
def home(tmp_path_factory, mlflow_database):
    home = Home(tmp_path_factory.mktemp("home"))
    shutil.copy(mlflow_database, home.mlflow_db)
    return home


@pytest.fixture
def sweep(home, request, monkeypatch):
    """A sweep with all that a run can have, by the test's name."""
    name = "".join(c for c in request.node.name if c.isalnum())[-30:]
    write_runs(home, name)
    monkeypatch.setattr(sync, "study_names", lambda database: [name])
    return name


def write_runs(home, name):
    store = client(home)
    experiment = store.create_experiment(f"the {name}", home.artifacts.as_uri(), tags={"hpo.sweep": name})
    parent = store.create_run(experiment, 1000, {"hpo.sweep": name, "hpo.kind": "sweep"}, f"{name} C#").info.run_id
    for number in range(3):
        add_trial(store, experiment, parent, name, number)
    best = store.search_runs([experiment], "tags.`hpo.trial` = '1'")[0].info.run_id
    link = f"[the best](#/experiments/{experiment}/runs/{best}) of 3, [released](#/models/{name}/versions/2)"
    store.log_batch(parent, tags=[RunTag("hpo.champion_run", best), RunTag("mlflow.note.content", link)])
    store.set_experiment_tag(experiment, "mlflow.note.content", f"runs/{best}")
    versions = json.dumps([{"name": name, "version": "2"}])
    tags = {"variant": "int8", "mlflow.modelVersions": versions}
    model = store.create_logged_model(experiment, "released", best, tags, {"r": "8"})
    folder = home_of(store.get_run(best)) / "model-1"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {}")
    with opened(home.mlflow_db) as database:  # as a release is: its files are among those of the run
        database.execute("UPDATE logged_models SET artifact_location = ? WHERE model_id = ?",
                         (folder.as_uri(), model.model_id))  # fmt: skip
    store.log_outputs(best, [LoggedModelOutput(model.model_id, 3)])
    store.log_batch(best, [Metric("best/f1", 0.5, 3000, 0, model.model_id)])
    store.finalize_logged_model(model.model_id, "READY")
    store._tracking_client.store.update_run_info(parent, 3, 9000, None)  # FINISHED
    return parent


def add_trial(store, experiment, parent, name, number):
    tags = {"hpo.sweep": name, "hpo.kind": "trial", "hpo.trial": str(number), "mlflow.parentRunId": parent}
    run_id = store.create_run(experiment, 2000 + number, tags, f"#{number:03d}").info.run_id
    curve = [Metric("loss", 1 / (step + 1), 2000 + step, step) for step in range(1200 if number == 0 else 5)]
    odd = [Metric("odd", value, 2000 + step, step) for step, value in enumerate((math.nan, math.inf, 0.1 + 0.2))]
    params = [Param(f"p{index}", "x" * 50) for index in range(120 if number == 1 else 3)]
    store.log_batch(run_id, [*curve, *odd], params, [RunTag("label", "C? https://…/ 🎈")])
    data = Dataset("reviews", "1" * 32, "local", "{}", profile='{"rows": 9}')
    store.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
    folder = home_of(store.get_run(run_id))
    (folder / "adapter").mkdir(parents=True)
    (folder / "result.json").write_text(f'{{"trial": {number}}}')
    (folder / "adapter" / "weights.bin").write_bytes(bytes(range(256)) * 10)
    if number < 2:
        store._tracking_client.store.update_run_info(run_id, 4 if number else 3, 5000 + number, None)


def home_of(run):
    return Path(run.info.artifact_uri.removeprefix("file://"))


def experiment_of(store, name):
    (found,) = store.search_experiments(filter_string=f"name = '{name}'")
    return found


def history(store, run, name):
    return sorted((m.timestamp, m.step, repr(m.value)) for m in store.get_metric_history(run.info.run_id, name))


def contents(store, experiment):
    """Everything of an experiment's runs by their names, with names of runs in place of ids."""
    found = experiment_of(store, experiment)
    runs = store.search_runs([found.experiment_id], run_view_type=ViewType.ACTIVE_ONLY)
    names = {run.info.run_id: run.info.run_name for run in runs} | {
        f"/experiments/{found.experiment_id}/": "/experiments/here/"
    }
    assert len({run.info.run_name for run in runs}) == len(runs)  # none is there twice

    def named(text):
        said = re.sub(
            r"#/models/[\w./-]+",
            "#/experiments/here/models/released",
            re.sub(r"/models/m-\w+", "/models/released", text),
        )
        return functools.reduce(lambda said, found: said.replace(found, names[found]), names, said)

    return {
        run.info.run_name: {
            "state": (run.info.status, run.info.start_time, run.info.end_time or None),
            "tags": {key: named(value) for key, value in run.data.tags.items() if key != COPY_TAG},
            "params": run.data.params,
            "metrics": {name: history(store, run, name) for name in run.data.metrics},
            "data": [(d.dataset.to_dictionary(), [t.value for t in d.tags]) for d in run.inputs.dataset_inputs],
            "models": [output.step for output in (run.outputs.model_outputs if run.outputs else [])],
        }
        for run in runs
    }  # fmt: skip


def assert_same(home, experiment, there):
    here = contents(client(home), experiment)
    copied = contents(there, experiment)
    assert copied.keys() == here.keys()
    for name in here:
        assert copied[name] == here[name]


def remote(server):
    return MlflowClient(f"http://{server}")


def files_there(there, run_id, path=None):
    found = []
    for file in there.list_artifacts(run_id, path):
        found += files_there(there, run_id, file.path) if file.is_dir else [file.path]
    return sorted(found)


def run_cli(home, *arguments):
    return CliRunner().invoke(cli, ["--home", str(home.dir), "sync", *arguments])


def test_a_sweep_is_copied_while_it_runs(tmp_path, mlflow_database, server, login, monkeypatch):
    """The address has the password, as some people write it; nothing that is written or said has it."""
    monkeypatch.setenv(VARIABLE, f"http://anna:{IN_URL}@{server}/")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    monkeypatch.setattr(hpo.tracking.remote.live_copy, "LAST_S", 120.0)  # a busy machine is slow for a moment
    home, said = Home(tmp_path / "home"), Said()
    home.dir.mkdir()
    shutil.copy(mlflow_database, home.mlflow_db)
    changes = {"search_space": RATE, "promote": False, "pruner": {"type": "none"}}
    file = write_sweep(tmp_path, name="live", search_strategy={"type": "random", "num_trials": 3}, **changes)
    run_sweep(file, home, view=said, worker="trainers.host.fake")
    assert f"runs are copied to http://{server} too" in said.lines
    assert f"http://{server} has all 4 runs" in said.lines
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    experiment = client(home).get_experiment(next(iter(runs_of(home, "live"))).info.experiment_id)
    assert_same(home, experiment.name, remote(server))
    for path in home.dir.rglob("*"):
        assert not path.is_file() or not any(word in path.read_bytes() for word in (PASSWORD.encode(), IN_URL.encode()))


def runs_of(home, sweep):
    store = client(home)
    experiments = [found.experiment_id for found in store.search_experiments()]
    return store.search_runs(experiments, f"tags.`hpo.sweep` = '{sweep}'")


def test_a_copy_equals_its_run_and_is_sent_once(home, sweep, server, login, monkeypatch):
    with unsteady(server) as proxy:
        monkeypatch.setenv(VARIABLE, f"http://{proxy.address}")
        first = run_cli(home, sweep)
        assert first.exit_code == 0, first.output
        assert first.output == f"{sweep}: 4 of 4 runs and 7 files copied; http://{proxy.address} has all of it\n"
        proxy.seen.clear()
        again = run_cli(home, "--json")
        assert '"copied_runs": 0' in again.output
        assert len(proxy.seen) <= 5  # is it still the server that has the runs?
        assert not [request for request in proxy.seen if request.startswith(("PUT", "POST"))]
    there = remote(server)
    assert_same(home, f"the {sweep}", there)
    experiment = experiment_of(there, f"the {sweep}")
    best = next(r for r in there.search_runs([experiment.experiment_id]) if r.data.tags.get("hpo.trial") == "1")
    assert experiment.tags["mlflow.note.content"] == f"runs/{best.info.run_id}"
    assert files_there(there, best.info.run_id) == ["adapter/weights.bin", "result.json"]
    (model,) = there.search_logged_models([experiment.experiment_id])
    assert (model.source_run_id, model.name, str(model.status)) == (best.info.run_id, "released", "READY")
    assert [(m.key, m.value) for m in model.metrics] == [("best/f1", 0.5)]
    assert [file.path for file in there.list_logged_model_artifacts(model.model_id)] == ["MLmodel"]
    parent = next(r for r in there.search_runs([experiment.experiment_id]) if r.data.tags["hpo.kind"] == "sweep")
    link = f"#/experiments/{experiment.experiment_id}/models/{model.model_id}"
    assert parent.data.tags["mlflow.note.content"].endswith(f"[released]({link})")


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        (500, "answered 500 (Internal Server Error)"),
        ("lost", "cannot be reached"),
        ("page", "gave an answer that MLflow's client cannot read"),
        ("hangs", "does not answer"),
        (401, "answered 401 (Unauthorized): check MLFLOW_TRACKING_USERNAME"),
        (404, "answered 404 (Not Found)"),
        (None, "cannot be reached (Connection refused)"),
    ],
)
def test_what_a_server_does_wrong_is_said_and_everything_waits(home, sweep, monkeypatch, mood, words):
    monkeypatch.setattr(sync, "_LONGEST_WAIT_S", 0.5)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with unsteady() as proxy:
        proxy.mood = lambda count: mood
        monkeypatch.setenv(VARIABLE, f"http://u:p4ssword@{proxy.address}")
        if mood is None:
            proxy.shutdown()
            proxy.server_close()
        found = run_cli(home, sweep)
    assert found.exit_code == 1
    assert f"{sweep}: nothing copied, 4 wait" in found.output
    assert words in str(found.exception)
    assert "p4ssword" not in found.output + str(found.exception)


def test_a_login_that_is_no_administrator_copies_too(home, sweep, server, login, monkeypatch):
    """Such a login hears 403, not 404, about a run that is not there: at first all of them, and later a deleted one."""
    ben = {"username": "ben", "password": "another long password"}
    answer = requests.post(
        f"http://{server}/api/2.0/mlflow/users/create", json=ben, auth=("anna", PASSWORD), timeout=60
    )
    assert answer.status_code == 200
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ben["username"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ben["password"])
    monkeypatch.setenv(VARIABLE, f"http://{server}")
    assert "4 of 4 runs" in run_cli(home, sweep).output
    assert_same(home, f"the {sweep}", remote(server))
    with opened_ledger(home.sweep(sweep).remote_ledger, f"http://{server}") as ledger:
        for local in ledger.entries():
            ledger.put(local, Entry("0" * 32))
    again = run_cli(home, sweep)
    assert again.exit_code == 0, again.output
    assert_same(home, f"the {sweep}", remote(server))


class Killed(BaseException):
    """The process is gone."""


class Mortal(RemoteStore):
    """A store whose process is killed after so many requests, just when the last one was carried out.

    `loses` says of a request, by its number, whether it does not arrive ("request") or nobody hears of it ("answer").
    """

    def __init__(self, url, lives=10**9, loses=lambda count: None):
        super().__init__(url)
        self._lives = lives
        self._loses = loses
        self._count = 0
        self.asked = []

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        return functools.partial(self._once, name, found) if callable(found) and not name.startswith("_") else found

    def _once(self, name, request, *arguments):
        self._count += 1
        lost = self._loses(self._count)
        if lost == "request":
            raise Unavailable("is not there")
        answer = None if name == "put_file" else request(*arguments)  # a database takes no files
        self.asked.append((name, *arguments))
        if self._count == self._lives:
            raise Killed
        if lost == "answer":
            raise Unavailable("went away")
        return answer


@pytest.fixture
def database(tmp_path, mlflow_database):
    """A store without a server before it: requests take a hundredth of the time."""
    return f"sqlite:///{shutil.copy(mlflow_database, tmp_path / 'there.db')}"


def deliver(home, sweep, store, waiting=0, tries=1):
    with (
        opened(home.mlflow_db) as runs, opened_ledger(home.sweep(sweep).remote_ledger, "there") as ledger,
    ):  # fmt: skip
        delivery = Delivery(store, RunSource(home, sweep, runs, client(home)), ledger)
        for last in reversed(range(tries)):
            try:
                delivery.records()
                for _ in delivery.files():
                    pass
                break
            except Unavailable:
                assert last
        assert delivery.waiting == waiting
        return delivery


@pytest.fixture
def own_folder(home, sweep):
    home.sweep(sweep).dir.mkdir(parents=True)
    return home.sweep(sweep)


def test_a_kill_between_any_two_requests_doubles_nothing(home, sweep, own_folder, database):
    values = []
    for lives in range(1, 200):
        store = Mortal(database, lives)
        try:
            deliver(home, sweep, store)
        except Killed:
            continue
        finally:
            values += [(log[1], m.key, m.timestamp, m.step) for log in store.asked if log[0] == "log" for m in log[2]]
        break
    assert lives < 60  # each process came further than the one before
    assert len(values) == len(set(values)) > 1200
    assert_same(home, f"the {sweep}", MlflowClient(database))


def test_a_server_that_lost_everything_gets_it_again(home, sweep, own_folder, database, mlflow_database):
    deliver(home, sweep, Mortal(database))
    shutil.copy(mlflow_database, database.removeprefix("sqlite:///"))
    assert len(deliver(home, sweep, Mortal(database)).sent_runs) == 4
    assert_same(home, f"the {sweep}", MlflowClient(database))


def test_a_server_that_lost_what_came_last_gets_it_again(home, sweep, own_folder, database):
    """As one that came back from a backup of its own."""
    deliver(home, sweep, Mortal(database))
    there = MlflowClient(database)
    copies = there.search_runs([experiment_of(there, f"the {sweep}").experiment_id])
    last = max(copies, key=lambda run: run.info.start_time).info.run_id
    there.delete_run(last)
    there._tracking_client.store._hard_delete_run(last)
    deliver(home, sweep, Mortal(database))
    assert_same(home, f"the {sweep}", there)


def test_what_is_deleted_there_comes_back_only_where_something_is_added(home, sweep, own_folder, database):
    deliver(home, sweep, Mortal(database))
    there = MlflowClient(database)
    experiment = experiment_of(there, f"the {sweep}").experiment_id
    there.delete_experiment(experiment)
    deliver(home, sweep, Mortal(database))
    assert there.get_experiment(experiment).lifecycle_stage == "deleted"
    assert not there.search_runs([experiment])
    (parent,) = (run.info for run in runs_of(home, sweep) if run.data.tags["hpo.kind"] == "sweep")
    add_trial(client(home), parent.experiment_id, parent.run_id, sweep, 7)
    deliver(home, sweep, Mortal(database))
    assert_same(home, f"the {sweep}", there)


def test_a_copy_that_was_deleted_renamed_or_doubled_there_goes_on(home, sweep, own_folder, database):
    deliver(home, sweep, Mortal(database))
    there, store = MlflowClient(database), client(home)
    experiment = experiment_of(there, f"the {sweep}")
    running = next(run for run in runs_of(home, sweep) if run.data.tags.get("hpo.trial") == "2")
    (copy,) = there.search_runs([experiment.experiment_id], f"tags.`{COPY_TAG}` = '{running.info.run_id}'")
    late = there.create_run(experiment.experiment_id, 0, {COPY_TAG: running.info.run_id}, "answered too late")
    there.rename_experiment(experiment.experiment_id, "ours")
    there.delete_run(copy.info.run_id)
    store.log_metric(running.info.run_id, "loss", 7.0, 9999, 99)
    store.set_terminated(running.info.run_id, "KILLED", 9999)
    deliver(home, sweep, Mortal(database))
    assert there.get_run(late.info.run_id).info.lifecycle_stage == "deleted"
    there.rename_experiment(experiment.experiment_id, f"the {sweep}")
    assert_same(home, f"the {sweep}", there)


def test_steps_that_a_restored_home_repeats_are_there_once(home, sweep, own_folder, database):
    """Its trial goes on from the backup, at other times; MLflow itself keeps both values of a step."""
    store, there = client(home), MlflowClient(database)
    run_id = next(run for run in runs_of(home, sweep) if run.data.tags.get("hpo.trial") == "2").info.run_id

    def trained(steps, time, value):
        store.log_batch(run_id, [Metric("loss", value, time, step) for step in steps])
        store.log_batch(run_id, [Metric("best/f1", value, time, 0)])

    deliver(home, sweep, Mortal(database))
    ledger_then = own_folder.remote_ledger.read_bytes()
    trained(range(10, 15), 7000, 0.5)
    deliver(home, sweep, Mortal(database))
    own_folder.remote_ledger.write_bytes(ledger_then)  # as a backup has them: they lack what came after it
    with opened(home.mlflow_db) as database_here:
        database_here.execute("DELETE FROM metrics WHERE run_uuid = ? AND timestamp = 7000", (run_id,))
    trained((10, 11), 8000, 0.75)
    deliver(home, sweep, Mortal(database))
    with opened(home.mlflow_db) as runs, opened_ledger(own_folder.remote_ledger, "there") as ledger:
        delivery = Delivery(Mortal(database), RunSource(home, sweep, runs, store), ledger)
        for steps in ((12, 13), range(14, 18)):  # by one process
            trained(steps, 9000 + steps[0], 0.75)
            delivery.records()
    experiment = experiment_of(there, f"the {sweep}").experiment_id
    (copy,) = there.search_runs([experiment], f"tags.`{COPY_TAG}` = '{run_id}'")
    curve = sorted((m.step, m.value) for m in there.get_metric_history(copy.info.run_id, "loss"))
    assert curve[-8:] == [*((step, 0.5) for step in range(10, 15)), *((step, 0.75) for step in range(15, 18))]
    assert [step for step, _ in curve] == [*range(5), *range(10, 18)]
    assert there.get_run(copy.info.run_id).data.metrics["best/f1"] == 0.75


def test_a_server_on_the_home_s_own_store_gets_nothing(home, sweep, own_folder):
    store = Mortal(f"sqlite:///{home.mlflow_db}")
    with opened(home.mlflow_db) as runs, opened_ledger(own_folder.remote_ledger, "here") as ledger:
        delivery = Delivery(store, RunSource(home, sweep, runs, client(home)), ledger)
        with pytest.raises(OwnStore, match="this home's own store"):
            delivery.records()
    assert (len(runs_of(home, sweep)), store.written) == (4, 0)


def test_a_copy_that_such_a_server_once_made_is_not_copied(home, sweep, own_folder, database):
    run = runs_of(home, sweep)[0]
    client(home).create_run(run.info.experiment_id, tags={**run.data.tags, COPY_TAG: run.info.run_id})
    assert deliver(home, sweep, Mortal(database)).total == 4


@pytest.mark.parametrize("call", ["get_run", "get_logged_model"])
def test_a_run_that_is_deleted_for_good_meanwhile_is_passed_over(home, sweep, own_folder, database, monkeypatch, call):
    """Its records are there already when it goes, just before its files are looked at."""
    store, (best,) = client(home), (run for run in runs_of(home, sweep) if run.data.tags.get("hpo.trial") == "1")
    with opened(home.mlflow_db) as runs, opened_ledger(own_folder.remote_ledger, "there") as ledger:
        delivery = Delivery(Mortal(database), RunSource(home, sweep, runs, store), ledger)
        delivery.records()
        asked = getattr(store, call)

        def gone(given):
            monkeypatch.undo()
            delete_for_good(home, [best.info.run_id])
            return asked(given)

        delivery._runs.sort(key=lambda run: run.run_id != best.info.run_id)
        monkeypatch.setattr(store, call, gone)
        for _ in delivery.files():
            pass
        assert (delivery.total, delivery.waiting) == (3, 0)


def test_files_that_vanish_while_they_are_looked_at_are_left_out(home, sweep, monkeypatch):
    run = next(run for run in runs_of(home, sweep) if run.data.tags.get("hpo.trial") == "2")
    at = LocalFile.at

    def gone(file, folder):
        file.unlink()
        return at(file, folder)

    monkeypatch.setattr(LocalFile, "at", gone)
    with opened(home.mlflow_db) as runs:
        assert RunSource(home, sweep, runs, client(home)).files(run.info.artifact_uri) == []


def test_a_courier_that_cannot_start_ends_no_sweep(home, monkeypatch):
    monkeypatch.setenv(VARIABLE, "http://127.0.0.1:1")
    said = []
    with hpo.tracking.remote.live_copy.copied_to_server(home, "without-a-folder", said.append):
        pass
    (line,) = said
    assert line.startswith("note: no run is copied to http://127.0.0.1:1 now: ")


def test_a_parameter_that_has_changed_at_home_is_a_tag_there(home, sweep, own_folder, database):
    """As where a sweep goes on and has another champion: no request changes a parameter."""
    deliver(home, sweep, Mortal(database))
    run_id = next(run for run in runs_of(home, sweep) if run.data.tags.get("hpo.trial") == "2").info.run_id
    with opened(home.mlflow_db) as store:
        store.execute("UPDATE params SET value = 'another' WHERE key = 'p0' AND run_uuid = ?", (run_id,))
    deliver(home, sweep, Mortal(database))
    there = MlflowClient(database)
    experiment = experiment_of(there, f"the {sweep}").experiment_id
    (copy,) = there.search_runs([experiment], f"tags.`{COPY_TAG}` = '{run_id}'")
    assert copy.data.params["p0"] == "x" * 50
    assert json.loads(copy.data.tags["hpo.changed_params"]) == {"p0": "another"}
    forget_params(home, run_id)  # as at the end of a sweep, before it writes those of its champion
    deliver(home, sweep, Mortal(database))
    changed = there.get_run(copy.info.run_id).data.tags["hpo.changed_params"]
    assert json.loads(changed) == dict.fromkeys(copy.data.params)
    client(home).log_batch(run_id, params=[Param(*item) for item in copy.data.params.items()])
    deliver(home, sweep, Mortal(database))
    assert there.get_run(copy.info.run_id).data.tags["hpo.changed_params"] == "{}"


def test_a_run_that_the_server_refuses_stops_no_other(home, sweep, own_folder, database, monkeypatch):
    """Here a server of an older MLflow, with other limits."""
    log = RemoteStore.log

    def limited(self, run_id, metrics, params, tags):
        log(self, run_id, [*metrics, Metric("no; such", 0.0, 0, 0)] if len(metrics) > 1000 else metrics, params, tags)

    monkeypatch.setattr(RemoteStore, "log", limited)
    delivery = deliver(home, sweep, Mortal(database), waiting=1)
    assert "answered 400 (Bad Request): " in delivery.refusals[0]
    here, there = contents(client(home), f"the {sweep}"), contents(MlflowClient(database), f"the {sweep}")
    assert [name for name in here if here[name] != there[name]] == ["#000"]


def test_lost_requests_and_lost_answers_double_nothing(home, sweep, own_folder, database):
    """A server that is gone for a moment again and again: before a request, or just after it was carried out."""
    store = Mortal(database, loses=lambda count: {0: "answer", 8: "request"}.get(count % 17))
    deliver(home, sweep, store, tries=50)
    values = [(log[1], m.key, m.timestamp, m.step) for log in store.asked if log[0] == "log" for m in log[2]]
    assert len(values) == len(set(values)) > 1200
    assert_same(home, f"the {sweep}", MlflowClient(database))


def test_a_sweep_does_not_wait_for_a_server_that_hangs(home, sweep, own_folder, monkeypatch):
    """The process that copies is this one here, and its end an exception."""
    ends, starts = os.pipe()
    gone, said = threading.Event(), io.StringIO()
    monkeypatch.setattr(remote_process.os, "_exit", lambda code: gone.set())
    with unsteady() as proxy, os.fdopen(ends) as stdin:
        monkeypatch.setattr(remote_process.sys, "stdin", stdin)
        proxy.mood = lambda count: "hangs"
        courier = remote_process.Courier(sweep, f"http://{proxy.address}", 0.3, said)
        threading.Thread(target=courier.run, args=(home,), daemon=True).start()
        while not proxy.seen:
            time.sleep(0.01)
        os.close(starts)
        assert gone.wait(5)


TOKEN = "a.very-secret_token~1"  # noqa: S105  # of a proxy that lives as long as a test


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """The server's own one, that of another host, one that has expired, and a file that is none."""
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "none.pem").write_text("no certificate")
    return {
        "right": self_signed(folder / "right.pem"),
        "other host": self_signed(folder / "other.pem", "127.0.0.2"),
        "expired": self_signed(folder / "expired.pem", days=-1),
        "none": folder / "none.pem",
    }


def said_by_the_copying_process(home, sweep):
    """What a sweep hears of the process that copies its runs."""
    said = []
    with hpo.tracking.remote.live_copy.copied_to_server(home, sweep, said.append):
        pass
    return said


def test_the_certificates_that_requests_trusts_count_too(certificates, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates["right"]))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with unsteady(certificate=certificates["right"]) as proxy:
        proxy.mood = lambda count: 404
        assert not RemoteStore(f"https://{proxy.address}").has("a" * 32, "any")
    assert len(proxy.seen) == 1


def assert_no_secret(home, *texts):
    written = [path.read_bytes() for path in home.dir.rglob("*") if path.is_file()]
    for secret in (TOKEN, PASSWORD, IN_URL):
        assert not any(secret in text for text in texts)
        assert not any(secret.encode() in content for content in written)


@pytest.mark.parametrize(
    ("serves", "trusts", "words"),
    [
        ("right", None, "has no certificate that this machine trusts: MLFLOW_TRACKING_SERVER_CERT_PATH names"),
        ("right", "other host", "has no certificate that this machine trusts"),
        ("other host", "other host", "has a certificate for another host: use the name that the certificate has"),
        ("expired", "expired", "has a certificate that has expired"),
        (None, "right", "does not speak TLS: its address may begin with http://"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_said(home, sweep, certificates, monkeypatch, serves, trusts, words):
    monkeypatch.setattr(sync, "_LONGEST_WAIT_S", 0.5)
    if trusts:
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificates[trusts]))
    with unsteady(certificate=certificates.get(serves)) as proxy:
        monkeypatch.setenv(VARIABLE, f"https://{proxy.address}")
        found = run_cli(home, sweep)
    assert found.exit_code == 1
    assert f"https://{proxy.address} {words}" in str(found.exception)


def test_a_sweep_hears_once_of_a_wrong_certificate_and_goes_on(home, sweep, own_folder, certificates, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    monkeypatch.setattr(hpo.tracking.remote.live_copy, "LAST_S", 60.0)  # a busy machine takes long to start a process
    with unsteady(certificate=certificates["right"]) as proxy:
        monkeypatch.setenv(VARIABLE, f"https://{proxy.address}")
        said = said_by_the_copying_process(home, sweep)
    later = f"the runs wait in the home; hpo sync {sweep} copies them later"
    assert [line for line in said if line.startswith("note:")] == [
        f"note: https://{proxy.address} has no certificate that this machine trusts: "
        f"MLFLOW_TRACKING_SERVER_CERT_PATH names a certificate to trust: {later}"
    ]
    assert_no_secret(home, *said)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"MLFLOW_TRACKING_SERVER_CERT_PATH": "/no/such.pem"}, "CERT_PATH: /no/such.pem cannot be read (No such file"),
        ({"REQUESTS_CA_BUNDLE": "none"}, "none.pem holds no certificate; expected a PEM file"),
        ({"MLFLOW_TRACKING_CLIENT_CERT_PATH": "/no/such.pem"}, "CERT_PATH: /no/such.pem is not a file"),
        ({"MLFLOW_TRACKING_SERVER_CERT_PATH": "right", "MLFLOW_TRACKING_INSECURE_TLS": "true"}, "exclude each other"),
        ({"MLFLOW_TRACKING_TOKEN": f"{TOKEN}\n"}, "MLFLOW_TRACKING_TOKEN: has a space, a line break or another"),
        ({"MLFLOW_TRACKING_TOKEN": f"{TOKEN}ü"}, "MLFLOW_TRACKING_TOKEN: has a space, a line break or another"),
        ({"MLFLOW_HTTP_REQUEST_TIMEOUT": "1m"}, "MLFLOW_HTTP_REQUEST_TIMEOUT: '1m'; expected whole seconds"),
    ],
)
def test_variables_that_no_request_can_be_made_with_are_refused(home, certificates, monkeypatch, variables, words):
    """By hpo sync; a sweep notes it and goes on."""
    monkeypatch.setenv(VARIABLE, "https://127.0.0.1:1")
    for name, value in variables.items():
        monkeypatch.setenv(name, str(certificates.get(value, value)))
    found = run_cli(home)
    assert isinstance(found.exception, UsageError)
    assert words in str(found.exception)
    (line,) = said_by_the_copying_process(home, "any")
    assert line == f"note: no run is copied to a server: {found.exception}"
    assert TOKEN not in line


def test_a_server_that_comes_and_goes_gets_everything_in_order_and_once(
    home, sweep, own_folder, server, certificates, monkeypatch
):
    """The process beside a sweep meets every failure there is, then a server that is gone and one that has another
    token; a later process delivers the rest, with what was logged since. All over TLS with a token, which is nowhere.
    """
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificates["right"]))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    monkeypatch.setattr(remote_process, "_WAITS_AFTER_FAILURE_S", (0.01,))
    monkeypatch.setattr(remote_process, "_LOOKS_EVERY_S", 0.01)
    moods = {1: 500, 5: "lost", 9: "unheard", 14: "slow", 16: "hangs", 20: "unheard", 23: 503, 26: "page", 29: "lost"}
    with (
        unsteady(server, certificate=certificates["right"]) as proxy, courier(home, sweep, proxy, monkeypatch) as said,
    ):  # fmt: skip
        proxy.token, proxy.login = TOKEN, f"anna:{PASSWORD}"
        proxy.mood = lambda count: moods.get(count, "fine") if count < 32 else 500
        while len(proxy.seen) < 34:
            time.sleep(0.01)
        carried_out, port = proxy.carried_out, proxy.server_port
    assert said[0].startswith(f"note: https://{proxy.address} answered 500 (Internal Server Error): the runs wait")
    (parent,) = (run.info for run in runs_of(home, sweep) if run.data.tags["hpo.kind"] == "sweep")
    add_trial(client(home), parent.experiment_id, parent.run_id, sweep, 7)
    monkeypatch.setenv(VARIABLE, f"https://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a busy machine answers late
    monkeypatch.setattr(sync, "_LONGEST_WAIT_S", 0.5)
    outputs = [str(run_cli(home, sweep).exception)]
    assert "cannot be reached" in outputs[0]
    with unsteady(server, port, certificates["right"]) as proxy:
        proxy.token, proxy.login = f"{TOKEN}2", f"anna:{PASSWORD}"
        outputs.append(str(run_cli(home, sweep).exception))
        proxy.token = TOKEN
        outputs.append(run_cli(home, sweep).output)
        carried_out = [*carried_out, *proxy.carried_out]
    assert "answered 401 (Unauthorized): check MLFLOW_TRACKING_USERNAME" in outputs[1]
    assert outputs[2].endswith(f"https://127.0.0.1:{port} has all of it\n")
    assert_in_order_and_once(carried_out)
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    assert_same(home, f"the {sweep}", remote(server))
    assert_no_secret(home, *said, *outputs)


@contextmanager
def courier(home, sweep, proxy, monkeypatch):
    """The process that copies while a sweep runs, as a thread of this one; gives what it says."""
    ends, starts = os.pipe()
    said = io.StringIO()
    monkeypatch.setattr(remote_process.os, "_exit", lambda code: None)
    lines = []
    with os.fdopen(ends) as stdin:
        monkeypatch.setattr(remote_process.sys, "stdin", stdin)
        beside = remote_process.Courier(sweep, f"https://{proxy.address}", 0.1, said)
        thread = threading.Thread(target=beside.run, args=(home,))
        thread.start()
        try:
            yield lines
        finally:
            os.close(starts)
            thread.join(30)
            lines += said.getvalue().splitlines()


def assert_in_order_and_once(carried_out):
    """Of every metric of every run: no step before an earlier one, none twice."""
    last = {}
    for path, body in carried_out:
        if path.endswith("/runs/log-batch"):
            batch = json.loads(body)
            for metric in batch.get("metrics", ()):
                key = batch["run_id"], metric["key"]
                assert metric.get("step", 0) > last.get(key, -1), key
                last[key] = metric.get("step", 0)
    assert max(last.values()) == 1199


def test_two_processes_do_not_copy_the_same_sweep(home, sweep, own_folder, monkeypatch):
    monkeypatch.setenv(VARIABLE, "http://127.0.0.1:1")
    with sync.held_if_free(own_folder.remote_lock):
        found = run_cli(home, sweep)
    assert found.exit_code == 0
    assert found.output == f"{sweep}: another process copies its runs now (4 of 4 runs wait)\n"


def test_a_sweep_that_ran_in_another_home_is_copied_from_there(home, sweep, own_folder, server, login, monkeypatch):
    """A database on a server has the studies of several homes, and each home its runs."""
    monkeypatch.setattr(sync, "study_names", lambda database: [sweep, "elsewhere"])
    monkeypatch.setenv(VARIABLE, f"http://{server}")
    assert run_cli(home).output == f"{sweep}: 4 of 4 runs and 7 files copied; http://{server} has all of it\n"
    assert f"elsewhere: no runs in {home.mlflow_db}; --home names the home" in str(run_cli(home, "elsewhere").exception)
    assert not home.sweep("elsewhere").dir.exists()


def test_hpo_sync_asks_for_a_server_and_a_sweep(home, sweep, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert "no server to copy to; set MLFLOW_TRACKING_URI" in str(run_cli(home, sweep).exception)
    monkeypatch.setenv(VARIABLE, "sqlite:///else.db")
    assert isinstance(run_cli(home, sweep).exception, UsageError)
    monkeypatch.setenv(VARIABLE, "http://localhost:1")
    assert f"no sweep 'other'; there are: {sweep}" in str(run_cli(home, "other").exception)


@pytest.mark.parametrize(
    ("given", "url", "login"),
    [
        ("https://mlflow.example.org/", "https://mlflow.example.org", None),
        ("http://[::1]:5000/team", "http://[::1]:5000/team", None),
        ("http://anna:a%2Fb%40@host:1", "http://host:1", ("anna", "a/b@")),
    ],
)
def test_an_address_is_kept_without_its_password(given, url, login):
    found = TrackingServer.named({VARIABLE: given})
    assert found.url == url
    assert found.for_mlflow({}).get("MLFLOW_TRACKING_PASSWORD") == (login and login[1])
    assert not login or login[1] not in repr(found)


@pytest.mark.parametrize(
    "given", ["http://", "https://:5000", "http://anna:pass/word@host", "http://host:no/", "http://h?x=secret"]
)
def test_a_wrong_address_is_refused_without_being_repeated(given):
    with pytest.raises(UsageError, match=r"MLFLOW_TRACKING_URI: .*") as error:
        TrackingServer.named({VARIABLE: given})
    assert "word" not in str(error.value).replace("password", "")
    assert "secret" not in str(error.value)


def test_ids_in_texts_are_those_of_the_server():
    a, b, c = "a" * 32, "b" * 32, "c" * 32
    names = Names({a: "1" * 32, f"m-{a}": "m-9"}, {"3": "77"}, {a, b}, {("reviews", "4"): ("3", f"m-{a}")})
    assert names.translated(f"[x](#/experiments/3/runs/{a}) models/m-{a}, {c}") == (
        f"[x](#/experiments/77/runs/{'1' * 32}) models/m-9, {c}"
    )
    assert names.translated(f"see {b}") is None
    assert names.translated("(#/models/reviews/versions/4)") == "(#/experiments/77/models/m-9)"
