"""Several sweeps release under one name, and the registry loses what it had: real models, exported and measured."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil

import pytest

from hpo.commands.sweep import run_sweep
from hpo.paths import Home
from hpo.tracking.mlflow_store import client
from tests.brought.test_stores import run_main
from tests.conftest import copied_home
from tests.hpo.builders import Said
from tests.quick_releases import EXPORTING, quick_releases

GOOD = {"max_examples": 320, "evaluations": 1, "max_length": 32, "learning_rate": 1e-2}
BAD = {**GOOD, "max_examples": 8, "learning_rate": 1e-7}
pytestmark = EXPORTING


@pytest.fixture(scope="module", autouse=True)
def _quick(graphs):
    with quick_releases(graphs):
        yield


def write_sweep(folder, tiny, name, training, **promote):
    config = {
        "name": name, "task": "text-classification", "model": str(tiny / "encoder"),
        "data": {"train": str(tiny / "reviews.jsonl"), "validation_size": 40, "test_size": 20},
        "search_space": {}, "training": training, "promote": {"name": "shared", "max_drop": 0.9, **promote},
    }  # fmt: skip
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(config))
    return file


@pytest.fixture(scope="module")
def first_release(tiny, tmp_path_factory, mlflow_database, _quick):
    """A home: its sweep `first` learned the labels of its data and is released as `shared`."""
    home = Home(tmp_path_factory.mktemp("first"))
    shutil.copy(mlflow_database, home.dir)
    file = write_sweep(tmp_path_factory.mktemp("file"), tiny, "first", GOOD)
    assert run_sweep(file, home).release.version == "1"
    return home


@pytest.fixture
def released(first_release, tiny, tmp_path):
    """A copy of that home, and what writes the YAML of a sweep."""
    return Home(copied_home(first_release.dir, tmp_path)), functools.partial(write_sweep, tmp_path, tiny)


def test_a_worse_model_or_a_tie_leaves_the_name_to_its_champion_until_a_person_or_the_file_says_so(
    released, capsys, monkeypatch
):
    home, write = released
    second = write("second", BAD, allow_useless=True)
    ended = run_main(capsys, monkeypatch, home.dir, "sweep", str(second))
    assert ended.code == 3
    told = re.search(
        r"models:/shared@champion stays version 1 of sweep 'first': f1_macro (\S+) on these validation rows, "
        r"trial 0 has (\S+): \S+ \(.* on the same 40 rows, p \S+\), worse beyond noise; version 2 is registered",
        ended.err,
    )
    assert float(told[1]) > 0.9 > float(told[2])
    assert client(home).get_model_version_by_alias("shared", "champion").tags["sweep"] == "first"
    assert client(home).get_model_version_by_alias("shared", "challenger").tags["sweep"] == "second"
    tie = run_sweep(write("tie", GOOD), home)
    assert tie.release is None
    assert "+0.0000 (+0.0000 to +0.0000 on the same 40 rows, p 1), within noise" in tie.refusal
    said = Said()
    shown = run_sweep(write("second", BAD, allow_useless=True, replace=True), home, view=said).to_json()
    assert shown["release"]["version"] == "2"  # it is not exported again
    assert shown["refusal"] is shown["challenger"] is None
    assert any(line.startswith("version 2 replaces version 1 of sweep 'first': f1_macro") for line in said.lines)
    aliases = client(home).get_registered_model("shared").aliases
    assert {name: str(version) for name, version in aliases.items()} == {
        "champion": "2", "previous": "1", "challenger": "3",
    }  # fmt: skip


def test_what_the_registry_lost_comes_back_and_is_found_where_the_home_is_moved_to(
    released, tmp_path, capsys, monkeypatch
):
    home, write = released
    first = write("first", GOOD)
    store = client(home)
    store.delete_registered_model_alias("shared", "champion")
    asked = run_main(capsys, monkeypatch, home.dir, "predict", "shared", "a")
    assert (asked.code, "no version of 'shared' has the alias 'champion'" in asked.err) == (2, True)
    said = Said()
    run_sweep(first, home, view=said)
    assert "the alias 'champion' of 'shared' was deleted in MLflow: giving it to version 1 again" in said.lines
    store.delete_registered_model("shared")
    said = Said()
    assert run_sweep(first, home, view=said).release.name == "shared"
    assert "'shared' version 1 was deleted in MLflow: releasing it again" in said.lines

    moved = Home(tmp_path / "moved")
    home.dir.rename(moved.dir)
    asked = run_main(capsys, monkeypatch, moved.dir, "predict", "shared", "warm funny film")
    assert asked.out.startswith("positive")
    assert "the home has moved" in asked.err
    assert not home.dir.exists()
    import mlflow

    uri = f"sqlite:///{moved.mlflow_db}"
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)  # MLflow sets both for good: they are as they were after the test
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        model = mlflow.pyfunc.load_model("models:/shared@champion")
        assert model.predict(["warm funny film"])[0]["label"] == "positive"
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            os.environ.pop(name, None)
