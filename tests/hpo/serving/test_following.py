"""A server that follows the registry: a new champion, a broken one, the process that asks killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import httpx2
import pytest

from hpo.lock import is_in_use
from hpo.paths import Home
from hpo.release.versions import versions_of
from hpo.tracking.mlflow_store import client
from tests.hpo.serving.conftest import started
from tests.hpo.serving.running import soon
from tests.hpo.serving.versions import Load, Versions, metric, served_version
from tests.processes import children_of


@pytest.fixture
def versions(home_with_store, encoder_release) -> Versions:
    found = Versions(Home(home_with_store), encoder_release())
    for _ in range(3):
        found.add()
    return found


@pytest.fixture
def following(versions):
    with (versions.home.dir / "log").open("w") as log, started(versions.order("1", follow_every=0.2), log) as server:
        yield server


def log_of(versions: Versions) -> str:
    return (versions.home.dir / "log").read_text()


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_new_champion_answers_and_no_request_fails(following, versions):
    clients = Load(following.url)
    with clients.running():
        for number in ("2", "3", "1"):
            versions.crown(number)
            assert soon(lambda number=number: served_version(following.url) == number)
            since = time.monotonic()
            assert soon(lambda number=number: versions.in_use() == {number})
            assert [v.version for v in versions_of(versions.home, "tone") if v.is_served] == [number]
            before = len(clients.asked)
            assert soon(lambda before=before: len(clients.asked) > before + 10)
            assert {asked.version for asked in clients.asked if asked.began > since} == {int(number)}
    assert not clients.failed
    assert {asked.status for asked in clients.asked} == {200}


def test_a_version_that_cannot_be_loaded_leaves_the_one_before(following, versions):
    versions.crown("2")
    assert soon(lambda: served_version(following.url) == "2")
    broken = versions.folders["3"]
    (broken / "model.onnx").write_bytes(b"no graph")
    versions.crown("3")
    assert soon(lambda: metric(following.url, "hpo:model_behind"))
    time.sleep(1.5)  # several looks
    assert metric(following.url, "hpo:model_load_failures_total") == 1
    assert served_version(following.url) == "2"
    assert httpx2.post(f"{following.url}/v1/classify", json={"input": "rain"}).status_code == 200
    assert not is_in_use(broken / "release.json")
    assert log_of(versions).count("version 3 is not served, version 2 still answers") == 1

    versions.crown("1")
    assert soon(lambda: served_version(following.url) == "1")
    assert metric(following.url, "hpo:model_behind") == 0
    versions.crown("3")  # it means something else again: tried again
    assert soon(lambda: metric(following.url, "hpo:model_load_failures_total") == 2)

    client(versions.home).delete_registered_model_alias("tone", "champion")
    assert soon(lambda: "no version of 'tone' has the alias 'champion'" in log_of(versions))
    assert served_version(following.url) == "1"


def test_the_process_that_asks_is_started_again_and_ends_with_the_server(following, versions):
    server = following.process
    versions.crown("2")
    assert soon(lambda: served_version(following.url) == "2")
    (asker,) = children_of(server.pid)
    os.kill(asker, signal.SIGKILL)
    assert soon(lambda: "ended with exit code -9" in log_of(versions))
    versions.crown("3")
    assert soon(lambda: served_version(following.url) == "3")
    (second,) = children_of(server.pid)
    server.kill()
    server.wait()
    assert soon(lambda: not is_alive(second))


def test_the_process_that_asks_ends_when_the_server_is_stopped(following):
    assert soon(lambda: children_of(following.process.pid))
    (asker,) = children_of(following.process.pid)
    following.process.send_signal(signal.SIGTERM)
    assert following.process.wait(30) == 0
    assert not is_alive(asker)
