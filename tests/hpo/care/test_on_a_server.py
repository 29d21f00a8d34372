"""The care of a home whose studies are on a PostgreSQL server: backups, restores, upgrades, the doctor."""

from __future__ import annotations

import errno
import threading

import optuna
import pytest

import hpo.care.restore
import hpo.care.upgrade
from hpo.care.backup import make_backup
from hpo.care.restore import restore_backup
from hpo.care.servers import look_at_studies_server
from hpo.care.upgrade import upgrade_home
from hpo.databases.dump import dump_server
from hpo.databases.postgres import ServerGone, engine_of
from hpo.databases.studies import StudiesDatabase
from hpo.errors import HpoError, UsageError
from hpo.paths import Home
from hpo.study.copies import copy_studies, sweeps_in
from hpo.study.lease import Lease, held_lease
from hpo.study.one_writer import one_writer, refuse_strange_folder
from hpo.study.schema import studies_revision, upgrade_studies
from hpo.study.storage import close_storage


def filled(url: str, name: str = "kept") -> list[optuna.trial.FrozenTrial]:
    """A study with a trial of each kind; one has nothing but extreme numbers, one is under way."""
    storage = optuna.storages.RDBStorage(url)
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
    study.set_user_attr("config", {"text": "é' \\ %", "deep": [1, {"a": None}]})
    trial = study.ask()
    trial.suggest_float("rate", 1e-5, 1e-1, log=True)
    trial.suggest_categorical("method", ["lora", "full"])
    trial.report(float("inf"), step=1)
    trial.set_user_attr("result", {"value": 0.1 + 0.2})
    study.tell(trial, 0.1 + 0.2)
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    study.ask()
    return trials_of(storage, name)


def trials_of(storage: optuna.storages.BaseStorage, name: str = "kept") -> list[optuna.trial.FrozenTrial]:
    trials = optuna.load_study(study_name=name, storage=storage).trials
    close_storage(storage)
    return trials


def test_studies_are_the_same_in_file_server_and_file_again(postgresql, tmp_path):
    first, last = (StudiesDatabase.in_file(tmp_path / name) for name in ("first.db", "last.db"))
    there = StudiesDatabase.on_server(postgresql.create("copied"))
    trials = filled(first.url)
    assert copy_studies(first, there) == copy_studies(there, last) == 1
    assert trials_of(optuna.storages.RDBStorage(there.url)) == trials
    assert trials_of(optuna.storages.RDBStorage(last.url)) == trials
    study = optuna.load_study(study_name="kept", storage=optuna.storages.RDBStorage(there.url))
    assert study.ask().number == 3  # its own numbers go on
    close_storage(study._storage._backend)
    with pytest.raises(UsageError, match="has studies already"):
        copy_studies(first, there)


def test_a_dump_of_a_server_needs_no_password_in_an_argument(postgresql, tmp_path, monkeypatch):
    database = StudiesDatabase.on_server(postgresql.create("dumped"))
    filled(database.url)
    dump_server(database, tmp_path / "studies.dump")
    assert (tmp_path / "studies.dump").read_bytes()[:5] == b"PGDMP"
    assert studies_revision(database) == "v3.2.0.a"
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="pg_dump is not installed"):
        dump_server(database, tmp_path / "other.dump")


def test_a_backup_takes_the_studies_of_a_server_along_and_a_restore_puts_them_on_another(
    postgresql, tmp_path, monkeypatch
):
    monkeypatch.setenv("HPO_STUDIES", postgresql.create("before"))
    home = Home(tmp_path / "home")
    trials = filled(home.studies_db.url)
    with one_writer(home, "kept", needs_files=False):
        home.sweep("kept").trial(0).dir.mkdir(parents=True)
        home.sweep("kept").trial(0).result.touch()
    manifest = make_backup(home, tmp_path / "backup")
    assert manifest.studies.startswith("postgresql://hpo@127.0.0.1:")
    for file in (tmp_path / "backup").rglob("*"):
        assert file.is_dir() or b"s3cret" not in file.read_bytes()

    with pytest.raises(UsageError, match="has studies already"):
        restore_backup(Home(tmp_path / "same"), tmp_path / "backup")
    monkeypatch.setenv("HPO_STUDIES", postgresql.create("after"))
    new = Home(tmp_path / "new")
    assert restore_backup(new, tmp_path / "backup").sweeps == ["kept"]
    assert trials_of(optuna.storages.RDBStorage(new.studies_db.url)) == trials
    refuse_strange_folder(new, "kept")
    assert not (new.dir / "studies.db").exists()
    monkeypatch.delenv("HPO_STUDIES")
    in_file = Home(tmp_path / "file")
    restore_backup(in_file, tmp_path / "backup")
    assert sweeps_in(in_file.studies_db) == {"kept"}
    refuse_strange_folder(in_file, "kept")


@pytest.fixture
def mixed(postgresql, request, tmp_path, monkeypatch):
    """A home with a sweep in its own file and one on a server, where another home has one too."""
    home = Home(tmp_path / "home")
    home.dir.mkdir()
    filled(home.studies_db.url, "earlier")
    monkeypatch.setenv("HPO_STUDIES", postgresql.create(request.node.name[-60:]))
    filled(home.studies_db.url, "of-another-home")
    filled(home.studies_db.url)
    with one_writer(home, "kept", needs_files=False):
        home.sweep("kept").trial(0).dir.mkdir(parents=True)
    return home


def test_a_backup_has_the_studies_of_its_home_and_no_others(mixed, postgresql, tmp_path, monkeypatch):
    manifest = make_backup(mixed, tmp_path / "backup")
    assert set(manifest.schemas) == {"studies.db", "studies-of-home.db"}
    content = tmp_path / "backup" / "home"
    assert sweeps_in(StudiesDatabase.in_file(content / "studies.db")) == {"kept"}
    assert sweeps_in(StudiesDatabase.in_file(content / "studies-of-home.db")) == {"earlier"}
    with monkeypatch.context() as patch:
        patch.delenv("HPO_STUDIES")
        with pytest.raises(UsageError, match=r"kept: their studies are in postgresql://127.*let HPO_STUDIES name that"):
            make_backup(mixed, tmp_path / "other")
        with pytest.raises(UsageError, match=r"and of the home's own file; nothing was restored"):
            restore_backup(Home(tmp_path / "in-file"), tmp_path / "backup")
    monkeypatch.setenv("HPO_STUDIES", postgresql.create("both"))
    new = Home(tmp_path / "new")
    assert restore_backup(new, tmp_path / "backup").sweeps == ["kept"]
    assert len(trials_of(optuna.storages.RDBStorage(new.studies_db.url))) == 3
    assert sweeps_in(StudiesDatabase.in_file(new.dir / "studies.db")) == {"earlier"}
    assert not (new.dir / "studies-of-home.db").exists()


def test_a_restore_that_fails_late_can_be_repeated(mixed, postgresql, tmp_path, monkeypatch):
    make_backup(mixed, tmp_path / "backup")
    monkeypatch.setenv("HPO_STUDIES", postgresql.create("again"))
    new = Home(tmp_path / "new")

    def fails(source, target):
        assert (new.dir / "sweeps" / "kept" / "studies").read_text() == f"{target.address}\n"
        raise ServerGone("gone")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name, act, says in [("copy_studies", fails, "gone"), ("sync_folder", full, "nothing was .*make room")]:
        with monkeypatch.context() as patch:
            patch.setattr(hpo.care.restore, name, act)
            with pytest.raises(HpoError, match=says):
                restore_backup(new, tmp_path / "backup")
        assert list(new.dir.iterdir()) == []
    with held_lease(new.studies_db, "late", tmp_path), held_lease(new.studies_db, "also", tmp_path):
        with pytest.raises(UsageError, match=r"^also \(process .*\), late \(.*\): running now; nothing was changed"):
            restore_backup(new, tmp_path / "backup")
        assert list(new.dir.iterdir()) == []
    assert restore_backup(new, tmp_path / "backup").sweeps == ["kept"]


def test_a_home_without_a_sweep_on_the_server_is_backed_up_from_its_own_file(postgresql, tmp_path, monkeypatch):
    """As on the day on which `HPO_STUDIES` is set, before the first sweep runs there: the database has no tables."""
    home, there = Home(tmp_path / "home"), Home(tmp_path / "there")
    home.dir.mkdir()
    trials = filled(home.studies_db.url, "earlier")
    monkeypatch.setenv("HPO_STUDIES", postgresql.create("unused"))
    manifest = make_backup(home, tmp_path / "backup")
    assert (manifest.studies, manifest.server) == (str(home.dir / "studies.db"), "")
    assert restore_backup(there, tmp_path / "backup").sweeps == ["earlier"]
    assert trials_of(optuna.storages.RDBStorage(there.studies_db.url), "earlier") == trials


def test_a_server_is_upgraded_after_a_dump_and_not_while_a_lease_is_held(postgresql, tmp_path, monkeypatch):
    monkeypatch.setenv("HPO_STUDIES", postgresql.create("old"))
    home = Home(tmp_path)
    trials = filled(home.studies_db.url)
    with held_lease(home.studies_db, "kept", tmp_path):
        postgresql.ask("DROP INDEX ix_trials_study_id", "old")
        postgresql.ask("UPDATE alembic_version SET version_num = 'v3.0.0.d'", "old")
        found = {finding.what: finding for finding in look_at_studies_server(home.studies_db)}
        assert found["lease"].found.startswith("kept: process ")
        assert "hpo upgrade" in found["schema"].found
        assert "s3cret" not in str(found)
        with pytest.raises(UsageError, match=r"kept .*: running now"):
            upgrade_home(home)
    began = threading.Event()

    def dumps(database, file):
        lease = Lease(database, "late", engine_of(database), lambda: None)  # a sweep begins on another machine
        thread = threading.Thread(target=lambda: (lease.take(tmp_path), began.set(), lease._engine.dispose()))
        waiting.append(thread)
        thread.start()
        dump_server(database, file)

    def migrates(database):
        assert not began.is_set()
        upgrade_studies(database)

    waiting: list[threading.Thread] = []
    with monkeypatch.context() as patch:
        patch.setattr(hpo.care.upgrade, "dump_server", dumps)
        patch.setattr(hpo.care.upgrade, "upgrade_studies", migrates)
        [done] = upgrade_home(home)
    waiting[0].join()
    assert began.is_set()
    assert (tmp_path / "before-upgrade" / "studies-v3.0.0.d.dump").read_bytes()[:5] == b"PGDMP"
    assert done.age == "current"
    assert {finding.mark for finding in look_at_studies_server(home.studies_db)} == {"ok"}
    assert trials_of(optuna.storages.RDBStorage(home.studies_db.url)) == trials
