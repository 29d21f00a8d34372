"""`hpo bundle`: every problem at once, nothing registered where the gate says no, and a version like any other."""

from __future__ import annotations

import json
import threading

import pytest

from hpo.commands import bundle as command
from hpo.commands.find_run import find_run
from hpo.commands.gc import collect_garbage
from hpo.errors import UsageError
from hpo.paths import Home
from hpo.release import bundle_registry
from hpo.release.aliases import aliases_of, seats
from hpo.release.bundle import parts_of
from hpo.release.versions import versions_of
from hpo.study.store import view_study
from hpo.tracking.mlflow_deletion import bundle_runs
from hpo.tracking.mlflow_store import client
from tests.brought.test_stores import run_main, swept
from tests.hpo.builders import Said
from tests.hpo.commands.test_gc import champion_of
from tests.hpo.release.rivals import registered

TRIALS = {"search_strategy": {"type": "random", "num_trials": 2}}


@pytest.fixture
def sweeps(tmp_path, home_with_store, monkeypatch):
    """Sweeps of the fake trainer by these names, with adapters; bundles are written by a trainer without a model."""
    home = Home(home_with_store)
    monkeypatch.setattr(command, "WORKER", "tests.hpo.release.bundles")
    monkeypatch.setattr(command.make_bundle, "__defaults__", ("tests.hpo.release.bundles",))

    def make(**named):
        for name, changes in named.items():
            swept(tmp_path / name, home.dir, name=name, **TRIALS, **changes)
            for record in view_study(home.studies_db, name).records:
                home.sweep(name).trial(record.number).adapter.mkdir(parents=True, exist_ok=True)
        return home

    return make


@pytest.mark.filterwarnings("ignore")  # MLflow's, when it is imported
def test_a_bundle_is_a_version_like_any_other(sweeps, capsys, monkeypatch):
    home = sweeps(one={}, two={"training": {"max_steps": 3}})
    ended = run_main(capsys, monkeypatch, home.dir, "bundle", "both", "one", "two", "one#0")
    assert (ended.code, "both/ADAPTER" in ended.out) == (0, True)
    (version,) = versions_of(home, "both")
    assert aliases_of(home, "both").champion == version.version
    manifest = version.manifest()
    assert {name: of["trial"] for name, of in manifest.adapters.items()} == {
        "one": champion_of(home, "one"), "two": champion_of(home, "two"), "one-0": 0,
    }  # fmt: skip
    assert manifest.adapters["two"]["sha256"]["adapter"] == "t" * 64
    again = run_main(capsys, monkeypatch, home.dir, "bundle", "both", "one", "--json")
    assert json.loads(again.out)["version"] == "2"
    assert aliases_of(home, "both").previous == version.version
    assert run_main(capsys, monkeypatch, home.dir, "delete", "--sweep", "one", "--force").code == 0
    assert all(version.has_files() for version in versions_of(home, "both"))
    assert run_main(capsys, monkeypatch, home.dir, "delete", "both/1", "--force").code == 0
    assert len(bundle_runs(home, "both")) == 2
    assert run_main(capsys, monkeypatch, home.dir, "delete", "both", "--force").code == 0
    assert bundle_runs(home, "both") == []


def test_a_name_whose_champion_is_no_bundle_is_refused_and_a_deleted_experiment_is_restored(
    sweeps, capsys, monkeypatch
):
    home = sweeps(one={})
    release = registered(home, "one", 0.9)
    with seats(home, "shared") as held:
        held.crown(release.version)
    ended = run_main(capsys, monkeypatch, home.dir, "bundle", "shared", "one")
    assert ended.code == 2
    assert "NAME: the champion of 'shared' is not a bundle: version 1 of sweep 'one'; choose another name" in ended.err
    store = client(home)
    store.delete_experiment(store.get_experiment_by_name("hpo").experiment_id)
    ended = run_main(capsys, monkeypatch, home.dir, "bundle", "both", "one")
    assert (ended.code, "'hpo' was deleted in MLflow: it is restored" in ended.out + ended.err) == (0, True)
    number = champion_of(home, "one")
    with pytest.raises(UsageError, match=rf"both/1 is a bundle of several trainings; name one of them: one#{number}$"):
        find_run(home, "both/1")


def test_hpo_gc_waits_while_a_bundle_is_registered(sweeps, monkeypatch):
    home = sweeps(one={})
    real, freed = bundle_registry.log_model, []

    def slow(*given):
        source = real(*given)
        thread = threading.Thread(target=lambda: freed.append(collect_garbage(home, dry_run=False, releases=False)))
        thread.start()
        thread.join(0.5)
        assert freed == []
        threads.append(thread)
        return source

    threads = []
    monkeypatch.setattr(bundle_registry, "log_model", slow)
    command.make_bundle(home, "both", ["one"], Said())
    threads[0].join(60)
    assert len(freed) == 1
    assert all(version.has_files() for version in versions_of(home, "both"))


def test_an_adapter_that_answers_otherwise_is_refused(sweeps, capsys, monkeypatch):
    home = sweeps(one={}, wrong={})
    ended = run_main(capsys, monkeypatch, home.dir, "bundle", "both", "one", "wrong")
    assert (ended.code, ended.out.count("version")) == (3, 0)
    assert "'both' was not released: wrong differs from its merged model by 0.2" in ended.err
    assert versions_of(home, "both") == []


def test_every_problem_is_named_at_once(sweeps, capsys, monkeypatch, tmp_path):
    home = sweeps(one={}, scaled={"method": "ia3"}, task={"task": "regression", "objective": {"metric": "mae"}})
    home = sweeps(**{"2024": {}})
    home.sweep("one").trial(1).adapter.rmdir()
    given = ["one#0", "one#1", "one#7", "one#0", "none", "scaled", "task", "#", "2024"]
    ended = run_main(capsys, monkeypatch, home.dir, "bundle", "../x", *given)
    assert ended.code == 2
    for found in (
        "NAME: '../x' is not a name",
        "one#1: its adapter is gone: hpo gc freed it; a trial with its adapter",
        "one#7: the sweep has no trial 7 with an adapter; expected one of 0, 1",
        "one-0: is given twice; each adapter once",
        "none: no sweep 'none'; there are: 2024, one, scaled, task",
        f"2024: as an adapter it would have the name of a version; 2024#{champion_of(home, '2024')}",
        "scaled: method ia3 is not expressed as thin matrices beside the base; one of lora, rslora, pissa",
        "task: its task is regression; text-classification, as of one-0",
    ):
        assert found in ended.err, found


def test_another_base_model_is_refused(sweeps, monkeypatch):
    home = sweeps(one={}, two={})
    import dataclasses

    from hpo.errors import ConfigError
    from hpo.release import bundle

    def seen(database, name):
        view = view_study(database, name)
        data = dataclasses.replace(view.state.data, model_fingerprint=name * 20)
        return dataclasses.replace(view, state=dataclasses.replace(view.state, data=data))

    monkeypatch.setattr(bundle, "view_study", seen)
    with pytest.raises(ConfigError, match="two: its base model model has other weights or tokens; the one of one"):
        parts_of(home, "both", ["one", "two"])
