"""`hpo releases`, `approve`, `rollback` and `delete` as commands on a real store: what they say, do and refuse."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing

import pytest

from hpo.commands import delete as delete_command
from hpo.errors import HpoError
from hpo.garbage import discard
from hpo.lock import hold_shared, sweep_lock
from hpo.paths import Home
from hpo.release.aliases import Aliases, aliases_of, seats
from hpo.release.versions import versions_of
from hpo.study.storage import open_storage
from hpo.study.store import study_names, view_study
from hpo.tracking.mlflow_deletion import runs_of
from hpo.tracking.mlflow_store import client
from tests.brought.test_stores import run_main, swept
from tests.hpo.builders import Killed
from tests.hpo.release.rivals import registered


@pytest.fixture
def registry(home_with_store):
    """Three versions of `shared`: 2 is champion, 1 was, 3 waits."""
    home = Home(home_with_store)
    for sweep, quality in (("first", 0.9), ("second", 0.95), ("third", 0.96)):
        registered(home, sweep, quality)
    with seats(home, "shared") as held:
        held.crown("1")
        held.crown("2")
        held.challenge("3", waits=True)
    return home


def folders(home):
    return {version.version: version.folder() for version in versions_of(home, "shared")}


def test_the_list_of_releases(registry, capsys, monkeypatch):
    said = run_main(capsys, monkeypatch, registry.dir, "releases", "shared", "--json")
    found = json.loads(said.out)
    assert [(v["version"], v["alias"], v["waits"], v["sweep"]) for v in found] == [
        ("3", "challenger", True, "third"), ("2", "champion", False, "second"), ("1", "previous", False, "first"),
    ]  # fmt: skip
    assert (found[0]["metric"], found[0]["metrics"]["f1_macro"], found[0]["variant"]) == ("f1_macro", 0.96, "fp32")
    assert found[0]["size_mb"] > 0
    shown = run_main(capsys, monkeypatch, registry.dir, "releases").out
    assert "challenger (waits)" in shown
    assert "f1_macro 0.9600" in shown
    discard(folders(registry)["1"])
    assert json.loads(run_main(capsys, monkeypatch, registry.dir, "releases", "--json").out)[2]["size_mb"] is None


def test_the_table_fits_into_80_columns(home_with_store, capsys, monkeypatch):
    """With names and numbers as the demo sweeps have them; of one name the origin of each version is said too."""
    home = Home(home_with_store)
    registered(home, "movie-sentiment", 0.9, name="movie-sentiment")
    with seats(home, "movie-sentiment") as held:
        held.crown("1")
    server = hold_shared(versions_of(home, "movie-sentiment")[0].folder() / "release.json")
    shown = run_main(capsys, monkeypatch, home.dir, "releases", "movie-sentiment").out
    os.close(server)
    _, _, columns, row, *_ = (line.rstrip() for line in shown.splitlines())
    assert columns.split() == ["version", "alias", "variant", "metric", "MB", "p50", "ms", "served", "by"]
    assert row.split()[:5] == ["movie-sentiment/1", "champion", "fp32", "f1_macro", "0.9000"]
    assert max(len(columns), len(row)) <= 80
    assert "movie-sentiment/1: from movie-sentiment, 20" in shown
    assert "\n  passed\n" in shown


def test_an_empty_home_has_no_releases(home_with_store, tmp_path, capsys, monkeypatch):
    for home in (home_with_store, tmp_path / "new"):
        assert run_main(capsys, monkeypatch, home, "releases").out == "no releases yet\n"
        asked = run_main(capsys, monkeypatch, home, "releases", "x")
        assert (asked.code, "no released model 'x'" in asked.err) == (2, True)
    assert not (tmp_path / "new").exists()


def test_approving_and_rolling_back(registry, capsys, monkeypatch):
    approved = run_main(capsys, monkeypatch, registry.dir, "approve", "shared")
    assert (approved.code, approved.out) == (0, "version 3 of 'shared' is the champion; version 2 is previous\n")
    back = run_main(capsys, monkeypatch, registry.dir, "rollback", "shared")
    assert back.out == "version 2 of 'shared' is the champion; version 3 is previous\n"
    assert run_main(capsys, monkeypatch, registry.dir, "approve", "shared/1").code == 0
    assert aliases_of(registry, "shared") == Aliases("1", "2")
    for words, told in (
        (("approve", "shared"), "has no challenger"),
        (("approve", "shared/9"), "no version '9' of 'shared'; hpo releases shared lists"),
        (("approve", "shared/x"), "no version 'x'"),
        (("approve", "shared/"), "no version ''"),
        (("approve", "unheard"), "no released model 'unheard'; there are: shared"),
        (("rollback", "unheard"), "no released model 'unheard'"),
    ):
        refused = run_main(capsys, monkeypatch, registry.dir, *words)
        assert (refused.code, told in refused.err) == (2, True), refused.err
    for version, folder in folders(registry).items():
        if version != "1":
            discard(folder)
    client(registry).set_registered_model_alias("shared", "challenger", "3")
    for words, version in ((("approve", "shared/3"), 3), (("approve", "shared"), 3), (("rollback", "shared"), 2)):
        gone = run_main(capsys, monkeypatch, registry.dir, *words)
        assert (gone.code, f"the files of version {version} of 'shared' are gone" in gone.err) == (2, True)
    assert aliases_of(registry, "shared") == Aliases("1", "2", "3")


def test_a_champion_and_a_previous_one_are_not_deleted_unless_forced(registry, capsys, monkeypatch):
    before = folders(registry)
    for name, told in (
        ("shared/2", "version 2 of 'shared' is champion: nothing was deleted; --force deletes it too"),
        ("shared/1", "version 1 of 'shared' is previous"),
        ("shared", "version 2 of 'shared' is champion, version 1 of 'shared' is previous"),
        ("shared/7", "no version '7' of 'shared'; there are: 3, 2, 1"),
    ):
        refused = run_main(capsys, monkeypatch, registry.dir, "delete", name)
        assert (refused.code, told in refused.err) == (2, True), refused.err
    assert folders(registry) == before
    assert run_main(capsys, monkeypatch, registry.dir, "delete", "shared/3").out == "deleted 1 version of 'shared'\n"
    assert not before["3"].parents[1].exists()
    assert aliases_of(registry, "shared") == Aliases("2", "1")
    assert run_main(capsys, monkeypatch, registry.dir, "delete", "shared/2", "--force").code == 0
    assert aliases_of(registry, "shared") == Aliases(None, "1")
    assert run_main(capsys, monkeypatch, registry.dir, "delete", "shared", "--force").code == 0
    assert not [folder for folder in before.values() if folder.exists()]
    assert "no released model" in run_main(capsys, monkeypatch, registry.dir, "delete", "shared").err


def test_a_name_whose_versions_are_gone_goes_by_the_same_command(registry, capsys, monkeypatch):
    """As a kill leaves it, or a person who deletes the versions in MLflow."""
    for version in "123":
        client(registry).delete_model_version("shared", version)
    assert (
        run_main(capsys, monkeypatch, registry.dir, "delete", "shared").out
        == "deleted 'shared', which had no version\n"
    )
    assert "no released model" in run_main(capsys, monkeypatch, registry.dir, "delete", "shared").err


def test_what_a_server_has_loaded_is_not_deleted_unless_forced(registry, capsys, monkeypatch):
    folder = folders(registry)["3"]
    with seats(registry, "shared") as held:
        held.crown("1")
        held.crown("2")
    client(registry).delete_registered_model_alias("shared", "challenger")
    server = hold_shared(folder / "release.json")
    shown = run_main(capsys, monkeypatch, registry.dir, "releases").out
    assert [line.split()[0] for line in shown.splitlines() if f"pid {os.getpid()}" in line] == ["shared/3"]
    refused = run_main(capsys, monkeypatch, registry.dir, "delete", "shared/3")
    assert (refused.code, "version 3 of 'shared' is served: nothing was deleted" in refused.err) == (2, True)
    assert run_main(capsys, monkeypatch, registry.dir, "gc", "--releases").code == 0
    assert folder.exists()
    os.close(server)  # as the kernel does when the server ends
    assert "pid" not in run_main(capsys, monkeypatch, registry.dir, "releases").out
    assert run_main(capsys, monkeypatch, registry.dir, "gc", "--releases").code == 0
    assert not folder.exists()


def test_delete_wants_one_thing(registry, capsys, monkeypatch):
    for words in (("delete",), ("delete", "shared", "--sweep", "first")):
        assert run_main(capsys, monkeypatch, registry.dir, *words).code == 2


@pytest.fixture
def swept_home(tmp_path, home_with_store):
    """Two sweeps of the fake trainer, of which `heir` took over a trial of `sweep`."""
    home = Home(home_with_store)
    swept(tmp_path, home.dir)
    return home


def test_a_sweep_is_deleted_from_study_mlflow_and_disk(swept_home, capsys, monkeypatch):
    home = swept_home
    runs = runs_of(home, "sweep")
    assert len(runs) == 3
    with sweep_lock(home.sweep("sweep").lock):
        refused = run_main(capsys, monkeypatch, home.dir, "delete", "--sweep", "sweep", "--force")
    assert (refused.code, "is running: nothing was deleted; hpo stop sweep" in refused.err) == (2, True)
    registered(home, "sweep", 0.9)
    with seats(home, "shared") as held:
        held.crown("1")
    refused = run_main(capsys, monkeypatch, home.dir, "delete", "--sweep", "sweep")
    assert (refused.code, "has released version 1 of 'shared', which has an alias" in refused.err) == (2, True)
    assert run_main(capsys, monkeypatch, home.dir, "delete", "--sweep", "sweep", "--force").out == (
        "deleted sweep 'sweep': 4 runs, 1 released version\n"
    )
    assert_gone(home, runs)
    assert run_main(capsys, monkeypatch, home.dir, "delete", "--sweep", "sweep").code == 2


def test_a_sweep_whose_trials_another_one_took_over_is_kept(swept_home, tmp_path, capsys, monkeypatch):
    strategy = {"type": "random", "num_trials": 2, "warm_start": ["sweep"]}
    swept(tmp_path, swept_home.dir, name="heir", search_strategy=strategy)
    refused = run_main(capsys, monkeypatch, swept_home.dir, "delete", "--sweep", "sweep")
    assert (refused.code, "has trained trials that heir took over" in refused.err) == (2, True)
    assert study_names(swept_home.studies_db) == ["heir", "sweep"]


@pytest.mark.parametrize("in_mlflow", [False, True], ids=["its folder", "its run"])
def test_a_sweep_from_which_another_one_started_is_kept(swept_home, tmp_path, capsys, monkeypatch, in_mlflow):
    """Also where its folder is on another disk: the config has the place that the link leads to."""
    home = swept_home
    home.sweep("sweep").dir.rename(tmp_path / "disk")
    home.sweep("sweep").dir.symlink_to(tmp_path / "disk")
    run_id = view_study(home.studies_db, "sweep").records[0].run_id
    start = home.artifacts / run_id / "artifacts" if in_mlflow else home.sweep("sweep").trial(0).dir
    start = start / "adapter"
    start.mkdir(parents=True, exist_ok=True)
    (start / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (start / "adapter_model.safetensors").touch()
    swept(tmp_path, home.dir, name="more", model={"source": "./model", "adapter": str(start)})
    refused = run_main(capsys, monkeypatch, home.dir, "delete", "--sweep", "sweep")
    assert (refused.code, "has the adapter that more started from (model.adapter)" in refused.err) == (2, True)
    assert (start / "adapter_config.json").exists()
    assert run_main(capsys, monkeypatch, home.dir, "delete", "--sweep", "more").code == 0
    assert run_main(capsys, monkeypatch, home.dir, "delete", "--sweep", "sweep").code == 0


def test_the_warm_start_of_a_sweep_that_goes_on_is_kept(swept_home, tmp_path, capsys, monkeypatch):
    """It has taken over nothing, and without that sweep its file is refused."""
    home = swept_home
    strategy = {"type": "random", "num_trials": 2, "warm_start": ["sweep"]}
    swept(tmp_path, home.dir, name="heir", search_strategy=strategy, training={"max_examples": 200, "evaluations": 2})
    store = open_storage(home.studies_db, "heir")
    heir = next(study for study in store.get_all_studies() if study.study_name.startswith("heir"))
    store.set_study_user_attr(heir._study_id, "state", "interrupted")
    refused = run_main(capsys, monkeypatch, home.dir, "delete", "--sweep", "sweep")
    assert (refused.code, "is the warm start of heir, which has not ended" in refused.err) == (2, True)
    store.set_study_user_attr(heir._study_id, "state", "complete")
    assert run_main(capsys, monkeypatch, home.dir, "delete", "--sweep", "sweep").code == 0


def test_a_sweep_with_the_files_of_a_version_that_a_person_registered_is_kept(swept_home, capsys, monkeypatch):
    """As by the button "Register model" of a run: the version has no files but those of the run."""
    home = swept_home
    store, run_id = client(home), view_study(home.studies_db, "sweep").records[0].run_id
    store.create_registered_model("mine")
    store.create_model_version("mine", f"{store.get_run(run_id).info.artifact_uri}/adapter", run_id)
    refused = run_main(capsys, monkeypatch, home.dir, "delete", "--sweep", "sweep")
    assert (refused.code, "has the files of version 1 of 'mine', which was registered" in refused.err) == (2, True)
    assert len(runs_of(home, "sweep")) == 3
    assert run_main(capsys, monkeypatch, home.dir, "delete", "--sweep", "sweep", "--force").code == 0


@pytest.mark.parametrize("step", range(6))
def test_a_deletion_that_was_killed_goes_on(swept_home, tmp_path, monkeypatch, step):
    home, calls = swept_home, 0
    runs = runs_of(home, "sweep")

    def dying(real):
        def call(*arguments):
            nonlocal calls
            calls += 1
            if calls > step:
                raise Killed
            return real(*arguments)

        return call

    with monkeypatch.context() as patch:
        for module, name in (
            (delete_command, "discard"), (delete_command, "delete_sweep"), (delete_command, "remove_unheld"),
            (delete_command, "delete_versions"), (delete_command, "delete_for_good"),
        ):  # fmt: skip
            patch.setattr(module, name, dying(getattr(module, name)))
        with pytest.raises(Killed):
            delete_command.delete_whole_sweep(home, "sweep")
    delete_command.delete_whole_sweep(home, "sweep")
    assert_gone(home, runs)
    with pytest.raises(HpoError, match="no sweep 'sweep'; there are none yet"):
        delete_command.delete_whole_sweep(home, "sweep")


def assert_gone(home, runs):
    assert study_names(home.studies_db) == []
    assert client(home).get_experiment_by_name("sweep") is None
    assert runs_of(home, "sweep") == []
    assert not [run for run in runs if (home.artifacts / run).exists()]
    assert not home.sweep("sweep").dir.exists()


@pytest.mark.parametrize("words", [("approve", "shared"), ("rollback", "shared"), ("delete", "shared", "--force")])
def test_a_store_that_cannot_be_written_is_said_in_a_line(registry, capsys, monkeypatch, words):
    with closing(sqlite3.connect(registry.mlflow_db)) as store:
        for table, change in (("registered_model_aliases", "UPDATE"), ("model_versions", "UPDATE")):
            store.execute(f"CREATE TRIGGER full_{table} BEFORE {change} ON {table} BEGIN "
                          "SELECT RAISE(ABORT, 'database or disk is full'); END")  # fmt: skip
        store.commit()
    failed = run_main(capsys, monkeypatch, registry.dir, *words)
    assert failed.code == 1
    assert failed.err.startswith("error: a store cannot be written: ")
    assert failed.err.endswith("make room; then the same command continues\n")
