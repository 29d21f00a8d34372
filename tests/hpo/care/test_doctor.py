"""What `hpo doctor` finds, says and never says."""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
import time
from base64 import b64encode
from contextlib import closing
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner

from hpo.care.disks import file_system_of, look_at_disks
from hpo.care.finding import Check, Finding, Group, examine, lines_of
from hpo.care.gpus import _none
from hpo.care.home_health import look_at_home
from hpo.care.machine import look_at_machine, look_at_variables
from hpo.care.packages import look_at_packages
from hpo.care.servers import clock_finding, look_at_studies_server, look_at_tracking_server
from hpo.cli.main import cli
from hpo.commands import doctor
from hpo.databases.studies import StudiesDatabase
from hpo.lock import sweep_lock
from hpo.nights.record import NightFiles
from hpo.paths import Home
from tests.hpo.builders import RATE, Killed, Sweep, stopping_after
from tests.hpo.nights.records import night
from tests.hpo.tracking.unsteady import self_signed, unsteady
from trainers.protocol.device_facts import DeviceFacts

LIMIT_S = 5.0
TOKEN = {"MLFLOW_TRACKING_TOKEN": "geheim"}


def marks(findings) -> dict[str, str]:
    return {finding.what: finding.mark for finding in findings}


def test_a_check_that_hangs_or_fails_hides_no_other_and_costs_its_limit():
    ended = threading.Event()

    def hang():
        ended.wait(30)
        return []

    def fail():
        yield Finding("ok", "first", "found")
        raise ZeroDivisionError("of a library")

    began = time.monotonic()
    groups = examine([Check("Hanging", hang, 0.2), Check("Failing", fail), Check("Failing", list)])
    assert time.monotonic() - began < 2
    ended.set()
    assert [group.title for group in groups] == ["Hanging", "Failing"]
    assert groups[0].findings == [Finding("problem", "Hanging", "no answer within 0.2 s", "see whether it hangs")]
    assert [finding.mark for finding in groups[1].findings] == ["ok", "problem"]
    assert doctor.exit_code_of(groups) == 1


def test_lines_are_wrapped_for_a_terminal_and_whole_for_a_pipe():
    found = Finding("note", "disk", "12345 " * 20 + "end", "make room")
    groups = [Group("Home", [found, Finding("ok", "home", "here")])]
    assert list(lines_of(groups, None)) == ["Home", f"  note     {found.text}", "  ok       home: here", "",
                                            "no problems; 1 note"]  # fmt: skip
    wrapped = list(lines_of(groups, 80))
    assert max(map(len, wrapped)) < 80
    assert wrapped[1].startswith("  note     disk:")
    assert wrapped[2].startswith(" " * 11 + "12345")


def test_variables_that_slow_trials_down_or_hide_the_network_are_named_without_secrets():
    environment = {
        "OMP_NUM_THREADS": "4", "OMP_WAIT_POLICY": "active", "GOMP_CPU_AFFINITY": "0-3", "HF_HUB_OFFLINE": "1",
        "HTTPS_PROXY": "http://me:geheim@proxy:1", "HF_TOKEN": "geheim",
    }  # fmt: skip
    found = list(look_at_variables(environment))
    assert [finding.mark for finding in found] == ["ok", "note", "note", "note", "note"]
    assert "geheim" not in str(found)
    assert marks(look_at_variables({**environment, "no_proxy": "localhost"}))["proxy"] == "ok"
    assert list(look_at_variables({"OMP_PROC_BIND": "false", "HF_HUB_OFFLINE": "0"})) == []


def test_this_machine_can_be_looked_at(tmp_path):
    assert {"Python", "cores", "memory"} <= set(marks(look_at_machine()))
    lock = tmp_path / "requirements.lock"
    lock.write_text("# a comment\nclick==0.1\nnot-installed==1\n")
    found = marks(look_at_packages(lock))
    assert found["packages"] == "ok"
    assert found["lock"] == "note"


def test_a_package_is_installed_by_its_own_name_and_never_hpo(tmp_path, monkeypatch):
    """No package index has this project: `pip install --upgrade hpo` would get another one, or nothing."""
    needs = ["click>=8", "none-such[x]>=2", "none-ray<3; extra == 'cluster'", "packaging>=9999; extra == 'cluster'"]
    monkeypatch.setattr("hpo.care.packages.metadata.requires", lambda _: needs)
    remedies = {finding.what: finding.remedy for finding in look_at_packages(tmp_path / "no-lock")}
    assert remedies == {
        "packages": "pip install 'none-such[x]>=2'",
        "extra": "pip install 'none-ray<3' 'packaging>=9999'",
    }


@pytest.mark.parametrize(
    ("facts", "present", "mark", "says"),
    [
        (DeviceFacts("2.13.0+cpu", ""), [], "ok", "none"),
        (DeviceFacts("2.13.0+cpu", ""), ["H200, 570.1"], "problem", "built for CPUs"),
        (DeviceFacts("2.13.0", "13.0"), ["H200, 470.1"], "problem", "finds none"),
        (DeviceFacts("2.13.0", "13.0", [], "busy"), ["H200, 470.1"], "problem", "busy"),
    ],
)
def test_gpus_that_torch_cannot_use_are_a_problem(facts, present, mark, says):
    found = _none(facts, present)
    assert found.mark == mark
    assert says in found.found


def test_a_disk_is_tried_out_and_left_as_it_was(tmp_path):
    home = Home(tmp_path / "home")
    found = marks(look_at_disks(home, has_studies=True))
    assert found["file system"] == "ok"
    assert list(tmp_path.iterdir()) == []
    assert file_system_of(tmp_path) != "unknown"


def test_each_disk_on_which_a_home_has_a_part_is_looked_at_once(tmp_path):
    home = Home(tmp_path)
    home.sweeps.symlink_to("/proc")
    home.artifacts.symlink_to("/proc/self")
    found = [finding.what for finding in look_at_disks(home, has_studies=True)]
    assert found == ["disk of the home", "disk of sweeps", "file system"]


def test_a_home_that_a_kill_left_says_so_and_a_damaged_database_is_a_problem(tmp_path, database):
    sweep = Sweep(tmp_path, database, search_space=RATE, search_strategy={"num_trials": 3})
    with pytest.raises(Killed):
        sweep.search(stopping_after(1))
    study = sweep.open()
    study.update_state(state="running")
    study.close()
    home = sweep.home
    (home.sweeps / "old" / ".release.deleted").mkdir(parents=True)
    (home.dir / ".restored").mkdir()
    name = sweep.config.name

    def look() -> list[Finding]:
        return list(look_at_home(home, home.studies_db))

    found = look()
    assert [f.mark for f in found if f.what == "sweeps"] == ["ok", "note"]
    assert [f.remedy[:11] for f in found if f.what == "leftovers"] == ["hpo gc remo", "remove it; "]
    with sweep_lock(home.sweep(name).lock):
        assert [f.found for f in look() if f.what == "sweeps"] == [f"1; running now: {name}"]
    with closing(sqlite3.connect(home.dir / "studies.db")) as file:
        file.execute("UPDATE alembic_version SET version_num = 'v3.0.0.d'")
        file.commit()
    assert "hpo upgrade" in next(f.found for f in look() if f.what == "studies")
    (home.dir / "studies.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    assert marks(look())["studies"] == "problem"


def test_a_sweep_that_a_night_has_begun_is_continued_by_nights_alone(tmp_path, database):
    sweep = Sweep(tmp_path, database, name="movies-2026-11-28", search_space=RATE)
    study = sweep.open()
    study.update_state(state="running")
    study.close()
    files = NightFiles(sweep.home.nights("movies"))

    def ways():
        found = look_at_home(sweep.home, sweep.home.studies_db)
        return [f.remedy.partition(",")[0] for f in found if (f.what, f.mark) == ("sweeps", "note")]

    assert ways() == ["hpo sweep FILE continues one"]
    files.write(night(state="running"))
    assert ways() == ["hpo nightly FILE continues that of tonight"]
    assert "nights" not in marks(look_at_home(sweep.home, None))
    (files.dir / "2026-11-27.json").write_text('{"format": 1, "na')
    (found,) = (f for f in look_at_home(sweep.home, None) if f.what == "nights")
    assert (found.mark, "2026-11-27.json cannot be read" in found.found) == ("problem", True)


class Tracking(BaseHTTPRequestHandler):
    """MLflow's server as far as the doctor asks it; its clock is two minutes ahead."""

    def do_GET(self):
        login = self.headers.get("Authorization")
        is_known = login in (f"Basic {b64encode(b'me:geheim').decode()}", "Bearer geheim")
        body = b"3.17.2" if self.path == "/version" else b"{}"
        self.send_response_only(200 if is_known else 401)
        self.send_header("Date", formatdate(time.time() + 120, usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def tracking():
    with HTTPServer(("127.0.0.1", 0), Tracking) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def asked(address: str, **environment: str) -> list[Finding]:
    return list(look_at_tracking_server({"MLFLOW_TRACKING_URI": address, **environment}))


def test_a_tracking_server_is_asked_for_its_login_version_and_clock(tracking, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.5)  # of both: however long the answer takes
    for found in (asked(f"http://me:geheim@{tracking}"), asked(f"http://{tracking}", **TOKEN)):
        assert [finding.mark for finding in found] == ["ok", "problem"]
        assert "MLflow 3.17.2" in found[0].found
        assert found[1].found == "the server is 120 s ahead of this machine"
    refused = asked(f"http://me:falsch@{tracking}")
    assert refused[0].mark == "problem"
    assert "does not accept the login" in refused[0].found
    assert "falsch" not in str(refused)
    assert asked("") == []
    assert asked("http://me:geheim@host:port")[0].mark == "problem"


def test_a_server_that_is_dead_or_silent_costs_seconds(tmp_path):
    with HTTPServer(("127.0.0.1", 0), Tracking) as silent:  # it listens, and nobody answers
        began = time.monotonic()
        found = asked(f"http://127.0.0.1:{silent.server_port}")
        assert time.monotonic() - began < LIMIT_S
        assert found[0].found == "does not answer"
    database = StudiesDatabase.on_server("postgresql://me:geheim@127.0.0.1:9/studies")
    found = list(look_at_studies_server(database))
    assert found[0].mark == "problem"
    assert "geheim" not in str(found)
    assert list(look_at_studies_server(StudiesDatabase.in_file(tmp_path / "x.db"))) == []


def test_a_certificate_that_has_expired_is_told_from_one_that_is_not_trusted(tmp_path):
    """As `hpo sync` tells them apart: to trust the first one would not help."""
    expired = self_signed(tmp_path / "expired.pem", days=-1)
    with unsteady(certificate=expired) as server:
        (found,) = asked(f"https://{server.address}", MLFLOW_TRACKING_SERVER_CERT_PATH=str(expired))
        (unknown,) = asked(f"https://{server.address}")
    assert (found.found, found.remedy) == ("has a certificate that has expired", "ask its administrator for a new one")
    assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in unknown.remedy


@pytest.mark.parametrize(("skew_s", "mark"), [(0.4, "ok"), (-30, "note"), (90, "problem")])
def test_a_clock_that_is_off_is_noted(skew_s, mark):
    assert clock_finding(skew_s, "the server").mark == mark


def test_the_command_prints_groups_as_text_or_json_and_fails_where_there_is_a_problem(monkeypatch, tmp_path):
    groups = [Group("Home", [Finding("problem", "disk", "full", "make room")])]
    monkeypatch.setattr(doctor, "examine_all", lambda home, address=None: groups)
    said = CliRunner().invoke(cli, ["--home", str(tmp_path), "doctor"])
    assert said.exit_code == 1
    assert said.output == "Home\n  problem  disk: full; make room\n\n1 problem, 0 notes\n"
    printed = CliRunner().invoke(cli, ["--home", str(tmp_path), "doctor", "--json"])
    assert printed.exit_code == 1
    assert json.loads(printed.output)[0]["findings"][0]["mark"] == "problem"


def test_a_package_that_cannot_be_imported_is_a_problem_and_no_traceback(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "hpo.care.packages", None)
    groups = doctor.examine_all(Home(tmp_path))
    assert [finding.what for finding in groups[0].findings if finding.mark == "problem"] == ["packages"]
