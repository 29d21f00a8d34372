"""MLflow's database before a sweep may write anything."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest

from hpo.errors import HpoError
from hpo.paths import Home
from hpo.tracking.ahead import made_ready
from hpo.tracking.mlflow_store import client


@pytest.fixture
def place(home):
    """The home, and where a sweep has its database created."""
    paths = Home(home).sweep("one")
    paths.dir.mkdir(parents=True)
    return Home(home), paths.store


def test_a_home_has_no_database_until_it_is_asked_for(place):
    home, folder = place
    threads = set(threading.enumerate())  # trackers of other tests may have one each
    with made_ready(home, folder) as put:
        assert not home.mlflow_db.exists()
        put()
        assert home.mlflow_db.exists()
    assert not folder.exists()
    assert [e.name for e in client(home).search_experiments()] == ["Default"]
    assert not {thread.name for thread in set(threading.enumerate()) - threads if "ThreadPool" in thread.name}


def test_the_folders_of_sweeps_may_be_on_another_disk(place, monkeypatch):
    home, folder = place

    def within_a_disk(real):
        def move(source, target, **keywords):
            if Path(source).is_relative_to(home.sweeps) != Path(target).is_relative_to(home.sweeps):
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            real(source, target, **keywords)

        return move

    monkeypatch.setattr(os, "rename", within_a_disk(os.rename))
    monkeypatch.setattr(os, "replace", within_a_disk(os.replace))
    with made_ready(home, folder) as put:
        put()
    assert client(home).search_experiments()
    assert sorted(path.name for path in home.dir.iterdir() if path.is_file()) == ["mlflow.db", "mlflow.lock"]


def test_where_a_check_fails_there_is_none(place):
    home, folder = place
    with pytest.raises(HpoError, match="bad data"), made_ready(home, folder):
        raise HpoError("bad data")
    assert not home.mlflow_db.exists()
    assert not folder.exists()


def test_what_a_kill_left_is_no_obstacle(place, mlflow_database):
    home, folder = place
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(b"SQLite format 3\0 and no more")
    with made_ready(home, folder) as put:
        put()
    assert client(home).search_experiments()


def test_a_database_that_is_there_stays(place, mlflow_database):
    """One from before, and one that another sweep has created meanwhile."""
    home, folder = place
    for meanwhile in (False, True):
        home.mlflow_db.unlink(missing_ok=True)
        if not meanwhile:
            shutil.copy(mlflow_database, home.mlflow_db)
        with made_ready(home, folder) as put:
            if meanwhile:
                shutil.copy(mlflow_database, home.mlflow_db)
            inode = home.mlflow_db.stat().st_ino
            put()
        assert home.mlflow_db.stat().st_ino == inode


def test_one_that_cannot_be_used_is_an_error_when_it_is_asked_for(place):
    home, folder = place
    home.mlflow_db.write_text("no database")
    with made_ready(home, folder) as put, pytest.raises(HpoError, match="is not a SQLite database"):
        put()
