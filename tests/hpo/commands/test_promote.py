"""`hpo promote`: a release without training, of the champion or of the trial that a person chose."""

from __future__ import annotations

import dataclasses
import json
import shutil
from contextlib import nullcontext

import pytest

import hpo.commands.promote as command
from hpo.commands.find_run import find_run
from hpo.commands.predict import predict
from hpo.commands.promote import run_promotion
from hpo.commands.show import read_sweep
from hpo.commands.sweep import run_sweep, search
from hpo.errors import ConfigError, RequestFailed, UsageError
from hpo.paths import Home
from hpo.release import registry
from hpo.release.bundle import parts_of
from hpo.release.promote import promote
from hpo.release.reference import version_named
from hpo.release.versions import versions_of
from hpo.results.released import Release as Registered
from hpo.tracking.mlflow_deletion import delete_for_good
from hpo.tracking.mlflow_store import client
from tests.conftest import copied_home
from tests.hpo.builders import Killed, Said, Sweep, stopping_after
from tests.quick_releases import EXPORTING, quick_releases
from trainers.protocol.variants import READING
from trainers.runtime.card import Card
from trainers.runtime.release import Release

LEARNS = {"max_examples": 320, "evaluations": 1, "max_length": 32, "learning_rate": 1e-2}
POINTS = {"type": "random", "num_trials": 2, "enqueue": [{"learning_rate": 1e-2}, {"learning_rate": 1.2e-2}]}
pytestmark = EXPORTING


@pytest.fixture(scope="module", autouse=True)
def _quick(graphs):
    with quick_releases(graphs):
        yield


@pytest.fixture
def write(write_yaml):
    """Writes the sweep's YAML: two points that learn the labels, nothing pruned."""

    def write(promote, **changes):
        keys = {"training": LEARNS, "search_strategy": POINTS, "pruner": {"type": "none"}, **changes}
        return write_yaml(name="chosen", promote=promote, **keys)

    return write


@pytest.fixture
def home(home_with_store):
    return Home(home_with_store)


@pytest.fixture(scope="module")
def once_swept(tiny, tmp_path_factory, mlflow_database, _quick):
    """The home of the sweep of `write(False)`, run once."""
    home = Home(tmp_path_factory.mktemp("swept"))
    shutil.copy(mlflow_database, home.dir)
    config = {
        "name": "chosen", "task": "text-classification", "model": str(tiny / "encoder"),
        "data": {"train": str(tiny / "reviews.jsonl"), "validation_size": 40, "test_size": 20},
        "search_space": {"learning_rate": {"type": "float", "low": 1e-3, "high": 3e-2, "log": True}},
        "training": LEARNS, "search_strategy": POINTS, "pruner": {"type": "none"}, "promote": False,
    }  # fmt: skip
    file = tmp_path_factory.mktemp("file") / "sweep.yaml"
    file.write_text(json.dumps(config))
    assert run_sweep(file, home).release is None
    return home


@pytest.fixture
def swept(once_swept, tmp_path):
    """A copy of that home."""
    return Home(copied_home(once_swept.dir, tmp_path))


def tags(home: Home, alias: str = "champion") -> str:
    """The trial of the version that has an alias."""
    return str(client(home).get_model_version_by_alias("chosen", alias).tags["trial"])


def test_the_champion_and_then_another_trial_are_released_without_training(write, swept):
    home, lenient = swept, {"max_drop": 0.9}
    ended = read_sweep(home, "chosen")
    best, other = ended.champion.number, 1 - ended.champion.number
    shown = run_promotion(write(lenient), home)
    assert (shown.release.trial, shown.chosen_trial, shown.state) == (best, None, "complete")
    assert tags(home) == str(best)
    assert shown.variants_trial == best

    said = Said()
    shown = run_promotion(write(lenient), home, trial=other, view=said)
    assert f"promoting trial {other}: merging its adapter, exporting to ONNX" in said.lines
    assert (shown.release.trial, shown.chosen_trial, shown.variants_trial) == (other, other, other)
    card = (version_named(home, "chosen").folder() / "README.md").read_text()
    assert f"- chosen by a person: trial {other}, " in card
    assert (tags(home), tags(home, "previous")) == (str(other), str(best))
    assert shown.champion.number == best  # of the sweep: the record stays what it is

    said = Said()
    again = run_sweep(write(lenient), home, view=said)  # what a person chose stays
    assert again.release == shown.release
    assert not [line for line in said.lines if line.startswith("promoting")]
    assert len(again.trials) == 2


def test_a_champion_stays_an_adapter_with_the_next_best_beside_it(write, swept):
    home = swept  # an edit asks for the release
    wanted = {"max_drop": 0.9, "as": "adapters", "top": 1}
    ended = run_sweep(write(wanted), home)
    best, folder = ended.champion.number, version_named(home, "chosen").folder()
    names = [f"trial-{number}" for number in (best, 1 - best)]
    card = Card.read(folder)
    assert (list(card.adapters), card.champion, ended.release.trial, ended.release.variant) == (
        names, names[0], best, "fp32",
    )  # fmt: skip
    assert [verdict.word for verdict in ended.variants] == ["passed"]
    bundle, texts = Release.load(folder), ["a fine film", "a dull plot"]
    assert [a["label"] for a in predict(home, "chosen", texts)] == [a["label"] for a in bundle[names[0]].predict(texts)]
    assert bundle[names[0]].predict(texts) != bundle[names[1]].predict(texts)
    (version,) = versions_of(home, "chosen")
    manifest = version.manifest()
    assert {name: of["trial"] for name, of in manifest.adapters.items()} == {names[0]: best, names[1]: 1 - best}
    assert find_run(home, "chosen/1").name == f"chosen#{best}"
    assert "## Adapters on one base" in (folder / "README.md").read_text()
    with pytest.raises(ConfigError, match="the champion of 'chosen' is not a bundle: version 1 of sweep 'chosen'"):
        parts_of(home, "chosen", ["chosen"])
    said = Said()
    assert run_sweep(write(wanted), home, view=said).release == ended.release
    assert f"trial {best} is released under these terms already: version 1 of 'chosen'" in said.lines

    merged = run_promotion(write({"max_drop": 0.9}), home, trial=1 - best)  # against the adapter that is champion
    assert merged.release.rivalry.metric == "f1_macro"
    assert merged.release.rivalry.champion == pytest.approx(manifest.measured["metrics"]["f1_macro"])
    assert Card.read(version_named(home, "chosen").folder()).adapters == ()


def test_the_command_asks_for_a_release_where_the_file_does_not(write, swept, monkeypatch):
    monkeypatch.setitem(READING, "cpu", ("fp32", "int8"))
    shown = run_promotion(write(False), swept)
    assert shown.release is not None or "max_drop" in (shown.refusal or "") or "passed" in (shown.refusal or "")
    assert {"fp32", "int8"} <= {verdict.variant for verdict in shown.variants}


def test_what_cannot_be_promoted_is_refused_before_anything_runs(write, home):
    with pytest.raises(UsageError, match="no sweep 'chosen'"):
        run_promotion(write(False), home)
    run_sweep(write(False), home, worker="trainers.host.fake")
    with pytest.raises(UsageError, match="sweep 'chosen' has no trial 7; hpo show chosen lists them"):
        run_promotion(write(False), home, trial=7)
    edited = write(False, search_strategy={**POINTS, "num_trials": 3})
    with pytest.raises(UsageError, match=r"was edited since .* \(search_strategy.num_trials\); hpo sweep"):
        run_promotion(edited, home)


def test_a_pruned_trial_and_a_sweep_under_way_have_nothing_to_release(write, home, monkeypatch):
    run_sweep(write(False), home, worker="trainers.host.fake")
    study = command.view_study(home.studies_db, "chosen")
    pruned = [dataclasses.replace(record, state="pruned") for record in study.records]
    monkeypatch.setattr(command, "view_study", lambda *_: dataclasses.replace(study, records=pruned))
    with pytest.raises(UsageError, match="trial 1 of 'chosen' is pruned; expected a complete one"):
        run_promotion(write(False), home, trial=1)
    ended = study.state
    running = [*study.records[:1], dataclasses.replace(study.records[1], state="running", result=None)]
    for state, records in (
        (dataclasses.replace(ended, search_ended_by=None), study.records),
        (dataclasses.replace(ended, state="interrupted"), running),
    ):
        halted = dataclasses.replace(study, state=state, records=records)
        monkeypatch.setattr(command, "view_study", lambda *_, halted=halted: halted)
        with pytest.raises(UsageError, match=r"sweep 'chosen' has not come to its end; hpo sweep .* continues it"):
            run_promotion(write(False), home)


def test_a_search_that_goes_on_has_not_ended(tmp_path):
    sweep = Sweep(tmp_path, search_strategy={"type": "random", "num_trials": 3})
    sweep.search()
    sweep.open().update_state(search_ended_by="all trials done")
    sweep.edit(search_strategy={"type": "random", "num_trials": 5})
    with pytest.raises(Killed):
        search(sweep.running(stopping_after(1)))
    assert sweep.open().state.search_ended_by is None


@pytest.mark.parametrize(("card", "is_new"), [(None, False), ("", True), ("For films.\nmit", False)])
def test_what_is_released_already_is_said_and_another_model_card_is_a_new_version(tmp_path, monkeypatch, card, is_new):
    monkeypatch.setattr(registry, "is_registered", lambda *_: True)
    monkeypatch.setattr(registry, "give_back", lambda *_: None)
    sweep = Sweep(tmp_path, name="chosen", promote={"card": {"intended_use": "For films.", "licence": "mit"}})
    sweep.search()
    running = sweep.running()
    champion, wanted = running.champion(), running.config.promote
    release = Registered("chosen", "7", "", "fp32", champion.number, champion.run_id, "", wanted.max_drop, "", card)
    running.study.update_state(release=release)
    with pytest.raises(RequestFailed, match="cannot export") if is_new else nullcontext():
        promote(running)
    said = f"trial {champion.number} is released under these terms already: version 7 of 'chosen'" in sweep.said.lines
    assert said is not is_new


def test_runs_that_were_deleted_in_mlflow_are_written_again_first(write, home, monkeypatch):
    """A release is an artifact of its training's run."""
    run_id = run_sweep(write(False), home, worker="trainers.host.fake").champion.run_id
    delete_for_good(home, [run_id])
    seen = []
    monkeypatch.setattr(command, "promote", lambda sweep: seen.append(sweep.to_release().run_id))
    run_promotion(write(False), home, worker="trainers.host.fake")
    assert client(home).get_run(seen[0]).info.run_id != run_id
