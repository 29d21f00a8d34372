"""Optuna's dashboard on studies of ours: it shows them, changes none, and gives no password away."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from hpo.databases.studies import StudiesDatabase
from hpo.study import dashboard
from hpo.study.lease import held_lease
from hpo.study.store import open_study
from tests.hpo.builders import RATE, make_config, trial_result
from tests.ports import free_port
from tests.postgres import as_a_process
from trainers.protocol.codec import fingerprint

is_absent = importlib.util.find_spec("optuna_dashboard") is None


def test_requests_that_would_change_a_study_reach_no_page():
    asked, said = [], []
    app = dashboard.only_reading(lambda environ, _: asked.append(environ["REQUEST_METHOD"]) or [b"page"])
    answers = [app({"REQUEST_METHOD": method}, lambda *given: said.append(given)) for method in ("GET", "DELETE")]
    assert asked == ["GET"]
    assert answers[0] == [b"page"]
    assert said[0][0] == "403 Forbidden"
    assert "only the sweep" in json.loads(b"".join(answers[1]))["reason"]


@pytest.fixture(params=["in_file", "on_server"])
def studies(request, tmp_path):
    """A sweep with a complete and a pruned trial; the path of the file has what a URI has to quote."""
    config = make_config(tmp_path, search_space=RATE, name="s", search_strategy={"type": "random"})
    if request.param == "in_file":
        (tmp_path / "a {home} %41").mkdir()
        database = StudiesDatabase.in_file(tmp_path / "a {home} %41" / "studies.db")
    else:
        database = StudiesDatabase.on_server(request.getfixturevalue("postgresql").create("dashboard"))
    with as_a_process(), held_lease(database, "s", tmp_path):
        study = open_study(config, fingerprint, database)
        study.update_state(config=config.resolved())
        for number, result in enumerate([trial_result(), trial_result("pruned", 0.2)]):
            study.begin(None)
            study.report(number, 0, 0.5, 0.1)
            study.finish(number, result)
        study.close()
    assert not database.file or database.file.exists()
    return database


@pytest.fixture
def served(studies):
    """A dashboard in its own process: (its port, its process's id)."""
    port = free_port()
    command = [sys.executable, "-m", "hpo.study.dashboard", "127.0.0.1", str(port)]
    environment = {**os.environ, dashboard.URL: studies.read_only_url}
    with subprocess.Popen(command, env=environment) as process:
        try:
            while not answers(port):
                assert process.poll() is None
                time.sleep(0.1)
            yield port, process.pid
        finally:
            process.terminate()


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ask(port, method, path):
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.mark.skipif(is_absent, reason="it is not installed: pip install optuna-dashboard")
def test_the_dashboard_shows_studies_and_changes_none(served):
    port, process = served
    status, page = ask(port, "GET", "/dashboard")
    assert (status, b"<div" in page) == (200, True)
    [study] = json.loads(ask(port, "GET", "/api/studies")[1])["study_summaries"]
    assert study["study_name"] == "s"
    status, found = ask(port, "GET", f"/api/studies/{study['study_id']}")
    assert status == 200
    assert [trial["state"] for trial in json.loads(found)["trials"]] == ["Complete", "Pruned"]
    assert ask(port, "DELETE", f"/api/studies/{study['study_id']}")[0] == 403
    assert b"s3cret" not in Path(f"/proc/{process}/cmdline").read_bytes()
