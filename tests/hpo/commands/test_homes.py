"""Two machines, each with a home of its own, and one PostgreSQL server with the studies of both."""

from __future__ import annotations

import json
import shutil
import threading

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

import hpo.commands.delete
import hpo.databases.postgres
import hpo.study.lease
from hpo.commands import ui
from hpo.commands.delete import delete_whole_sweep
from hpo.commands.gc import collect_garbage
from hpo.commands.sweep import run_sweep
from hpo.errors import SweepError, UsageError
from hpo.paths import Home
from hpo.study.lease import held_lease
from hpo.study.store import view_study
from tests.brought.test_stores import SWEEP, run_main
from tests.hpo.builders import Killed, Said, write_sweep

pytestmark = pytest.mark.xdist_group("homes")
TRIALS = 4


class Vanishing(Said):
    """A view that has the server vanish for a moment when the second trial has ended."""

    def __init__(self, running):
        super().__init__()
        self.running = running
        self.back: threading.Timer | None = None

    def trial_finished(self, number, result, finished, *, is_best):
        if finished == 2:
            self.running.stop()
            self.back = threading.Timer(0.5, self.running.start)
            self.back.start()


@pytest.fixture(scope="module")
def machines(tmp_path_factory, mlflow_database, postgresql):
    """A server, its sweep's file and home, and an empty home elsewhere; the sweep has ended."""
    folder = tmp_path_factory.mktemp("machines")
    here, elsewhere = Home(folder / "here"), Home(folder / "elsewhere")
    here.dir.mkdir()
    shutil.copy(mlflow_database, here.dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPO_STUDIES", postgresql.create("homes"))
        patch.setattr(hpo.databases.postgres, "_STEP_S", 0.05)
        file = write_sweep(folder, **{**SWEEP, "search_strategy": {"type": "random", "num_trials": TRIALS}})
        view = Vanishing(postgresql)
        run_sweep(file, here, jobs=1, threads=1, view=view, worker="trainers.host.fake")
        assert view.back
        view.back.join()
        yield file, here, elsewhere


def killed(*_):
    raise Killed


def files_of(home):
    return sorted(path for path in home.dir.rglob("*") if path.is_file())


def test_a_sweep_goes_on_when_the_server_is_back(machines):
    _, here, _ = machines
    study = view_study(here.studies_db, "sweep")
    assert [(record.number, record.state) for record in study.records] == [(n, "complete") for n in range(TRIALS)]
    assert study.state.state == "complete"
    assert not (here.dir / "studies.db").exists()


def test_the_password_is_in_no_file_of_the_home(machines):
    _, here, _ = machines
    assert not [path for path in files_of(here) if b"s3cret" in path.read_bytes()]


READING = [
    ("list", "--json"), ("show", "sweep", "--json"), ("report", "sweep", "--format", "json", "--output", "-"),
    ("query", "--json", "SELECT trial, value, metrics, run_id FROM trials"),
]  # fmt: skip


def test_optuna_s_dashboard_reads_and_its_arguments_have_no_password(machines, monkeypatch):
    _, here, _ = machines
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    program = ui._dashboard(here, 1)
    assert "s3cret" not in str(program.command)
    assert "s3cret" not in repr(program)
    [url] = program.secrets.values()
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM trials")).scalar() == TRIALS
        with pytest.raises(DBAPIError, match="read-only"):
            connection.execute(text("DELETE FROM trials"))
    engine.dispose()


@pytest.mark.parametrize("command", READING)
def test_other_machines_read(machines, capsys, monkeypatch, command):
    _, here, elsewhere = machines
    one, other = (run_main(capsys, monkeypatch, home.dir, *command) for home in (here, elsewhere))
    assert (one.code, other.code, other.err) == (0, 0, "")
    mine, theirs = json.loads(one.out), json.loads(other.out)
    absent = {"timeline": [], "champion_files": {}, "unread": None, "origin": None, "rows": None, "usage": None}
    for found in (mine, theirs):
        for facts in found if isinstance(found, list) else [found]:
            for name in absent.keys() & facts.keys():  # they are files of the home
                del facts[name]
    assert mine == theirs
    assert not elsewhere.dir.exists()


def test_only_one_machine_runs_a_sweep(machines, monkeypatch):
    file, here, elsewhere = machines
    with monkeypatch.context() as patch:
        patch.setattr(hpo.study.lease, "this_machine", lambda: "another one")
        patch.setattr("socket.gethostname", lambda: "gpu7")
        lease = held_lease(here.studies_db, "sweep", here.dir)
        lease.__enter__()
    try:
        with pytest.raises(SweepError, match=rf"already running: process \d+ on gpu7, since 20.*home {here.dir}"):
            run_sweep(file, elsewhere, worker="trainers.host.fake")
        assert not elsewhere.dir.exists()
        from hpo.commands.show import list_sweeps
        from hpo.commands.stop import stop_sweep

        assert [sweep.state for sweep in list_sweeps(elsewhere)] == ["running"]
        with pytest.raises(UsageError, match=r"runs elsewhere: process \d+ on gpu7.*; stop it there"):
            stop_sweep(elsewhere, "sweep")
    finally:
        with monkeypatch.context() as patch:  # killed on this machine, where nobody waits for its lease
            patch.setattr(hpo.study.lease, "this_machine", lambda: "another one")
            with pytest.raises(UsageError, match=rf"was run in home {here.dir} of gpu7"):
                run_sweep(file, elsewhere, worker="trainers.host.fake")
        lease.__exit__(None, None, None)
    with pytest.raises(UsageError, match=rf"was run in home {here.dir} of gpu7, .*continue it there, share that home"):
        run_sweep(file, elsewhere, worker="trainers.host.fake")
    assert not elsewhere.dir.exists()


def test_files_of_a_study_elsewhere_are_neither_used_nor_freed(machines, monkeypatch, tmp_path):
    """A home may have a sweep of the same name from before, with a study in its own file."""
    file, here, _ = machines
    home = Home(tmp_path / "home")
    adapter = home.sweep("sweep").trial(1).adapter / "adapter_model.safetensors"
    for path in (adapter, home.sweep("sweep").trial(1).result, home.tokens / "a" / "tokens"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    before = files_of(home)
    assert collect_garbage(home, dry_run=False, releases=True) == []
    with pytest.raises(UsageError, match=r"study is in .*studies\.db, not in postgresql://.*another name"):
        run_sweep(file, home, worker="trainers.host.fake")
    assert files_of(home) == before
    monkeypatch.delenv("HPO_STUDIES")  # forgotten
    with pytest.raises(UsageError, match=r"study is in postgresql://127.*, not in .*studies\.db: let HPO_STUDIES"):
        run_sweep(file, here, worker="trainers.host.fake")
    assert collect_garbage(here, dry_run=True, releases=False) == []


def test_a_sweep_is_deleted_where_its_files_are(machines, capsys, monkeypatch):
    _, here, elsewhere = machines
    refused = run_main(capsys, monkeypatch, elsewhere.dir, "delete", "--sweep", "sweep")
    assert (refused.code, "delete it in the home that has its files" in refused.err) == (2, True)
    assert not elsewhere.dir.exists()
    with monkeypatch.context() as patch:
        patch.setattr(hpo.commands.delete, "delete_sweep", killed)
        with pytest.raises(Killed):
            delete_whole_sweep(here, "sweep")
    assert run_main(capsys, monkeypatch, here.dir, "delete", "--sweep", "sweep").code == 0
    assert json.loads(run_main(capsys, monkeypatch, elsewhere.dir, "list", "--json").out) == []
    assert not here.sweep("sweep").dir.exists()
