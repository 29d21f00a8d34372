"""Executors of every kind, started with a worker and ended with the test."""

from __future__ import annotations

import os

import pytest

from hpo.executors.inline import InlineExecutor
from hpo.executors.local import LocalExecutor
from hpo.executors.ray.executor import RayExecutor, settings_here
from hpo.executors.restarting import RestartingExecutor
from tests.hpo.executors import misbehaving
from tests.hpo.executors.driving import HERE, ends_of
from trainers.host import fake

PATH = os.pathsep.join([str(HERE), str(HERE.parents[2])])


@pytest.fixture
def local(tmp_path, monkeypatch):
    """Starts trial hosts."""
    monkeypatch.setenv("PYTHONPATH", PATH)
    started = []

    def start(worker, **kwargs):
        started.append(LocalExecutor(tmp_path / "host.log", worker, **kwargs))
        return started[-1]

    yield start
    for executor in started:
        executor.close()


@pytest.fixture(scope="package")
def cluster():
    """A Ray cluster for the tests of this folder: a head without CPUs, to which tests add nodes."""
    pytest.importorskip("ray", reason="Ray is not installed")
    from tests.hpo.executors.nodes import TestCluster

    with TestCluster() as started:
        yield started


@pytest.fixture
def on_ray(cluster, tmp_path, monkeypatch):
    """Starts executors that train on the cluster's nodes."""
    monkeypatch.setenv("PYTHONPATH", PATH)
    cluster.with_usual_node()
    started = []

    def start(worker, *, shared_home=False, say=lambda text: None):
        log = tmp_path / "host.log"
        settings = settings_here(cluster.address, worker, log, shared_home=shared_home)
        started.append(RayExecutor(settings, log, say=say))
        return started[-1]

    yield start
    for executor in started:
        executor.close()


@pytest.fixture(scope="package")
def kept(cluster, tmp_path_factory):
    """Executors on the cluster by their worker; tests take turns with them, for an actor takes seconds to start."""
    started = {}

    def executor(worker):
        if worker not in started or started[worker].is_closed:
            log = tmp_path_factory.mktemp("ray") / "host.log"
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PYTHONPATH", PATH)
                started[worker] = RayExecutor(settings_here(cluster.address, worker, log, shared_home=True), log)
        return started[worker]

    yield executor
    for last in started.values():
        last.close()


@pytest.fixture
def in_turn_on_ray(cluster, kept):
    """An executor of `kept`, which has nothing under way after the test."""
    cluster.with_usual_node()
    taken = []

    def start(worker):
        taken.append(kept(worker))
        return taken[-1]

    yield start
    for executor in taken:
        if not executor.is_closed:
            under_way = executor.under_way()
            for request_id in under_way:
                executor.kill(request_id)
            ends_of(executor, *under_way, verdict=None)


RAY = pytest.param("ray", marks=pytest.mark.xdist_group("ray"))
"""All tests on the cluster in one process, which starts it once."""


@pytest.fixture(params=["inline", "local", "restarting inline", "restarting local", RAY])
def start(request):
    """Starts an executor with the fake trainer, or with the worker that misbehaves."""
    kind = request.param
    on_processes = (
        None if kind.endswith("inline") else request.getfixturevalue("in_turn_on_ray" if kind == "ray" else "local")
    )

    def begin(worker):
        if on_processes is None:
            return InlineExecutor(worker.work)
        return on_processes("misbehaving" if worker is misbehaving else worker.__name__)

    def start(worker=fake):
        return RestartingExecutor(lambda: begin(worker)) if "restarting" in kind else begin(worker)

    return start


@pytest.fixture
def restarting(local):
    """Starts trial hosts that are replaced when they end."""
    return lambda worker: RestartingExecutor(lambda: local(worker))
