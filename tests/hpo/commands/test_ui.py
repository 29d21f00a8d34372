"""The servers of `hpo ui`: a taken port is refused before they start, and when one ends, so does the other."""

from __future__ import annotations

import importlib.metadata
import socket
import sys

import pytest

from hpo.commands import ui
from hpo.errors import HpoError, UsageError
from hpo.paths import Home


def program(name, port, code):
    return ui._Program(name, port, "/", [sys.executable, "-c", code])


def test_a_server_that_ends_by_itself_is_named_and_ends_the_other():
    programs = [
        program("MLflow's server", 1, "import time; time.sleep(600)"),
        program("Optuna's dashboard", 2, "raise SystemExit(3)"),
    ]
    with ui._running(programs) as servers:
        assert not ui._answers(programs[1], servers[1])
        with pytest.raises(HpoError, match="Optuna's dashboard has ended with exit code 3"):
            ui._wait(programs, servers)
    assert all(server.poll() is not None for server in servers)


def test_an_installation_that_mlflow_does_not_know_of_is_said(tmp_path, monkeypatch):
    """As after `git pull`: MLflow finds hpo's application by what the installation says."""
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: ())
    with pytest.raises(HpoError, match="newer than its installation: install it again"):
        ui._mlflow(Home(tmp_path), 5000)


def test_a_port_that_is_taken_is_said_before_anything_starts():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port}, for Optuna's dashboard: another program has it; --port N"):
            ui._refuse_taken([program("Optuna's dashboard", port, "")])
    ui._refuse_taken([program("Optuna's dashboard", port, "")])
