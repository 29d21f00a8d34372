"""Studies copied between SQLite and PostgreSQL, and a server's database upgraded."""

from __future__ import annotations

import optuna
import pytest

from hpo.errors import UsageError
from hpo.studies_database import StudiesDatabase
from hpo.study.copies import copy_studies
from hpo.study.schema import studies_revision
from hpo.study.server_dump import dump_server
from hpo.study.study import close_storage
from tests.postgres import server


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with server(tmp_path_factory.mktemp("postgres")) as running:
        yield running


def filled(url: str) -> list[optuna.trial.FrozenTrial]:
    """A study with a trial of each kind; one has nothing but extreme numbers, one is under way."""
    storage = optuna.storages.RDBStorage(url)
    study = optuna.create_study(study_name="kept", storage=storage, direction="maximize")
    study.set_user_attr("config", {"text": "é' \\ %", "deep": [1, {"a": None}]})
    trial = study.ask()
    trial.suggest_float("rate", 1e-5, 1e-1, log=True)
    trial.suggest_categorical("method", ["lora", "full"])
    trial.report(float("inf"), step=1)
    trial.set_user_attr("result", {"value": 0.1 + 0.2})
    study.tell(trial, 0.1 + 0.2)
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    study.ask()
    return trials_of(storage)


def trials_of(storage: optuna.storages.BaseStorage) -> list[optuna.trial.FrozenTrial]:
    trials = optuna.load_study(study_name="kept", storage=storage).trials
    close_storage(storage)
    return trials


def test_studies_are_the_same_in_file_server_and_file_again(running, tmp_path):
    first, last = (StudiesDatabase.in_file(tmp_path / name) for name in ("first.db", "last.db"))
    there = StudiesDatabase.on_server(running.create("copied"))
    trials = filled(first.url)
    assert copy_studies(first, there) == copy_studies(there, last) == 1
    assert trials_of(optuna.storages.RDBStorage(there.url)) == trials
    assert trials_of(optuna.storages.RDBStorage(last.url)) == trials
    study = optuna.load_study(study_name="kept", storage=optuna.storages.RDBStorage(there.url))
    assert study.ask().number == 3  # its own numbers go on
    close_storage(study._storage._backend)
    with pytest.raises(UsageError, match="has studies already"):
        copy_studies(first, there)


def test_a_dump_of_a_server_needs_no_password_in_an_argument(running, tmp_path, monkeypatch):
    database = StudiesDatabase.on_server(running.create("dumped"))
    filled(database.url)
    dump_server(database, tmp_path / "studies.dump")
    assert (tmp_path / "studies.dump").read_bytes()[:5] == b"PGDMP"
    assert studies_revision(database) == "v3.2.0.a"
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="pg_dump is not installed"):
        dump_server(database, tmp_path / "other.dump")
