"""Executors of every kind, started with a worker and ended with the test."""

from __future__ import annotations

import os

import pytest

from hpo.executors.inline import InlineExecutor
from hpo.executors.local import LocalExecutor
from hpo.executors.restarting import RestartingExecutor
from tests.hpo.executors import misbehaving
from tests.hpo.executors.driving import HERE
from trainers.host import fake


@pytest.fixture
def local(tmp_path, monkeypatch):
    """Starts trial hosts."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parents[2])]))
    started = []

    def start(worker, **kwargs):
        started.append(LocalExecutor(tmp_path / "host.log", worker, **kwargs))
        return started[-1]

    yield start
    for executor in started:
        executor.close()


@pytest.fixture(params=["inline", "local", "restarting inline", "restarting local"])
def start(request, local):
    """Starts an executor with the fake trainer, or with the worker that misbehaves."""

    def begin(worker):
        if request.param.endswith("inline"):
            return InlineExecutor(worker.work)
        return local("misbehaving" if worker is misbehaving else worker.__name__)

    def start(worker=fake):
        return RestartingExecutor(lambda: begin(worker)) if "restarting" in request.param else begin(worker)

    return start


@pytest.fixture
def restarting(local):
    """Starts trial hosts that are replaced when they end."""
    return lambda worker: RestartingExecutor(lambda: local(worker))
