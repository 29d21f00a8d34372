"""The whole stack of `docker/compose.yaml`, started without containers: each part killed in the middle of a sweep."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import postgres
from tests.docker.stack import FAKE_HPO, ROOT, Stack
from tests.hpo.builders import write_sweep

RATES = (1e-4, 1e-3, 3e-3, 1e-2)
POINTS = [{"learning_rate": rate, "lora_r": rank} for rate in RATES for rank in (4, 8, 12, 16)]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    pytest.importorskip("moto", reason="the S3-compatible server of these tests: pip install 'moto[server]'")
    with postgres.server(tmp_path) as database:
        stack = Stack(tmp_path / "stack", database)
        stack.prepare()
        try:
            yield stack
        finally:
            for name in list(stack.running):
                stack.kill(name)


@pytest.fixture
def sweep_file(stack):
    file = write_sweep(
        stack.folder / "sweeps", name="stack",
        search_strategy={"type": "random", "num_trials": len(POINTS), "enqueue": POINTS},
        search_space={
            "learning_rate": {"type": "float", "low": 1e-4, "high": 3e-2, "log": True},
            "lora_r": {"type": "int", "low": 4, "high": 16},
        },
        training=POINTS[0], pruner={"type": "none"}, promote=False,
    )  # fmt: skip
    return file.rename(file.with_name("movie-sentiment.yaml"))


def finished(stack: Stack) -> int:
    return len(list((stack.home / "sweeps" / "stack" / "trials").glob("*/result.json")))


def wait_for_trials(stack: Stack, count: int) -> None:
    """Until so many trials have ended, or the sweep has."""
    end = time.monotonic() + 120
    while finished(stack) < count and stack.running["sweep"].poll() is None:
        assert time.monotonic() < end, (stack.logs / "sweep").read_text()
        time.sleep(0.02)


def shown(show: str) -> dict[str, Any]:
    found = json.loads(show)
    champion = {key: found["champion"][key] for key in ("number", "value", "metrics", "params")}
    trials = [{key: trial[key] for key in ("number", "state", "params", "value", "curve")} for trial in found["trials"]]
    return {"state": found["state"], "champion": champion, "trials": trials}


@pytest.mark.timeout(900)
def test_each_part_is_killed_in_the_middle_and_the_champion_is_the_same(stack, sweep_file, home_with_store):
    stack.start_objects()
    stack.start_mlflow()
    undisturbed = alone(sweep_file, home_with_store)  # while MLflow makes its tables
    stack.wait_for_mlflow()
    stack.run("first-start")
    disturb(stack)
    stack.run("sweep")  # whatever state the last kill left it in
    assert "has all of it" in stack.run("sweep", ["hpo", "sync"])
    assert shown(stack.run("sweep", ["hpo", "show", "stack", "--json"])) == undisturbed
    assert_runs_are_on_the_server(stack)
    assert_each_role_reaches_its_own_database(stack)
    assert_the_nightly_scheduler_waits(stack)
    assert_a_restored_backup_is_the_same(stack)
    assert_no_secret_is_written(stack)


def alone(file: Path, home: Path) -> dict[str, Any]:
    """The same sweep in a home of its own, with SQLite and no server."""
    command = [sys.executable, *FAKE_HPO[1:], "--home", home]
    said = ""
    for words in (["sweep", file], ["show", "stack", "--json"]):
        done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True)
        said = done.stdout
        assert done.returncode == 0, said + done.stderr
    return shown(said)


def disturb(stack: Stack) -> None:
    stack.begin("sweep")
    wait_for_trials(stack, 2)
    stack.kill("mlflow")
    wait_for_trials(stack, 4)
    stack.kill("objects")
    stack.start_mlflow()
    wait_for_trials(stack, 6)
    stack.start_objects()
    stack.database.stop()
    stack.database.start()
    wait_for_trials(stack, 10)
    assert finished(stack) < len(POINTS)
    stack.kill("sweep")
    stack.wait_for_mlflow()


def assert_runs_are_on_the_server(stack: Stack) -> None:
    """All of them, ended, with files that come out of the S3 store; and not without a login."""
    import boto3
    from mlflow import MlflowClient

    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://{stack.mlflow}/api/2.0/mlflow/experiments/get?experiment_id=0")
    assert refused.value.code == 401
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", "sweeps")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", stack.secret("mlflow_sweeps_password"))
        there = MlflowClient(f"http://{stack.mlflow}")
        experiment = there.get_experiment_by_name("stack")
        runs = there.search_runs([experiment.experiment_id])
        assert [run.info.status for run in runs] == ["FINISHED"] * (len(POINTS) + 1)
        files = {run.info.run_id: [file.path for file in there.list_artifacts(run.info.run_id)] for run in runs}
        assert all(files.values())
        parent = next(run.info.run_id for run in runs if run.data.tags["hpo.kind"] == "sweep")
        config = Path(there.download_artifacts(parent, "config.yaml", str(stack.folder)))
    assert "learning_rate" in config.read_text()
    storage = boto3.client(
        "s3", endpoint_url=f"http://{stack.objects}", region_name="us-east-1", aws_access_key_id="mlflow",
        aws_secret_access_key=stack.secret("objects_key"),
    )  # fmt: skip
    keys = [found["Key"] for found in storage.list_objects_v2(Bucket="mlflow")["Contents"]]
    assert all(any(run_id in key for key in keys) for run_id in files)


def assert_each_role_reaches_its_own_database(stack: Stack) -> None:
    def tables(role: str, secret: str, database: str) -> str:
        where = ["-h", "127.0.0.1", "-p", str(stack.database.port), "-U", role, "-d", database]
        command = [stack.database.programs / "psql", "-qAtX", *where, "-c", "\\dt"]
        done = subprocess.run(command, env={"PGPASSWORD": stack.secret(secret)}, capture_output=True, text=True)
        return done.stdout + done.stderr

    assert "trial_values" in tables("sweeps", "studies_password", "sweeps")
    assert not (stack.home / "studies.db").exists()
    assert "|runs|" in tables("mlflow", "mlflow_db_password", "mlflow")
    assert "permission denied" in tables("mlflow", "mlflow_db_password", "sweeps")
    assert "permission denied" in tables("sweeps", "studies_password", "mlflow")
    assert "authentication failed" in tables("sweeps", "mlflow_db_password", "sweeps")


def assert_the_nightly_scheduler_waits(stack: Stack) -> None:
    """For its time, or for the SIGTERM by which a container is stopped."""
    stack.begin("nightly")
    said = stack.logs / "nightly"
    end = time.monotonic() + 120
    while "the next night is due on" not in said.read_text():
        assert time.monotonic() < end, said.read_text()
        time.sleep(0.02)
    stack.running["nightly"].terminate()
    assert stack.running["nightly"].wait(60) == 130


def assert_a_restored_backup_is_the_same(stack: Stack) -> None:
    """The home and its studies in another home and another database; MLflow's database from its dump."""
    stack.run("sweep", ["hpo", "backup", "backup"])
    studies = stack.secrets / "studies_url"
    before = studies.read_text()
    stack.database.ask("CREATE DATABASE restored OWNER sweeps", "postgres")
    studies.write_text(before.strip().removesuffix("/sweeps") + "/restored")
    stack.run("sweep", ["hpo", "restore", "backup", "--home", "restored"])
    again = shown(stack.run("sweep", ["hpo", "--home", "restored", "show", "stack", "--json"]))
    studies.write_text(before)
    assert again == shown(stack.run("sweep", ["hpo", "show", "stack", "--json"]))
    stack.database.ask("CREATE DATABASE loaded OWNER mlflow", "postgres")
    dump = stack.script("postgres/dump.sh", "mlflow")
    for _ in range(2):  # into an empty database, and in place of what is there
        stack.script("postgres/load.sh", "loaded", given=dump)
    runs = "SELECT run_uuid, status FROM runs ORDER BY 1"
    assert stack.database.ask(runs, "loaded") == stack.database.ask(runs, "mlflow")


def assert_no_secret_is_written(stack: Stack) -> None:
    """Not into the home, a log or a database; not into the words of a command, which everybody on a machine reads."""
    secrets = [secret.encode() for secret in stack.all_secrets()]
    assert len(secrets) == 8
    assert all(len(secret) >= 48 for secret in secrets)
    folders = (stack.folder, stack.database.folder)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 100
    for path in files:
        if path.parent != stack.secrets:
            content = path.read_bytes()
            assert not any(secret in content for secret in secrets), path
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes()
        except OSError:  # it has ended
            continue
        assert not any(secret in words for secret in secrets), words
