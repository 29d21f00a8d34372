"""`hpo gc` on real studies, a real MLflow store and real files: what it frees, what it keeps, and kills in between."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import ExitStack

import pytest

import hpo.commands.gc
from hpo.commands.gc import (
    CUT_SHORT,
    DELETED_RUNS,
    LOSERS,
    OF_NODE,
    PREPARED,
    RELEASES,
    VARIANTS,
    collect_garbage,
    free_losing_trials,
)
from hpo.executors.ray.inputs import HOME_VARIABLE, KEPT_DAYS
from hpo.garbage import discard, size_of
from hpo.lock import hold_shared, is_locked, sweep_lock
from hpo.nights.record import NightFiles, NightRecord, Step
from hpo.paths import Home, held_of_prepared
from hpo.release.aliases import seats
from hpo.release.deletion import delete_versions
from hpo.release.reference import version_named
from hpo.release.versions import versions_of
from hpo.results.released import Release
from hpo.study.storage import open_storage
from hpo.study.store import view_study
from hpo.tracking.mlflow_deletion import deleted_runs, run_folder, runs_of
from hpo.tracking.mlflow_store import client
from tests.brought.test_stores import SWEEP, run_main, swept
from tests.hpo.builders import Killed
from tests.hpo.release.rivals import registered
from trainers.protocol.codec import to_json


@pytest.fixture
def swept_home(tmp_path, home_with_store):
    """A finished sweep of three trials, with adapters in their folders and in MLflow."""
    home = Home(home_with_store)
    swept(tmp_path, home.dir, search_strategy={"type": "random", "num_trials": 3})
    for number in range(3):
        fill(home, number)
    return home


def fill(home, number, sweep="sweep"):
    """What a real trainer would have written."""
    for path in heavy(home, number, sweep):
        path.mkdir(parents=True, exist_ok=True)
        (path / "adapter_model.safetensors").write_bytes(b"x" * 1000)


def heavy(home, number, sweep="sweep"):
    record = next(r for r in view_study(home.studies_db, sweep).records if r.number == number)
    paths = home.sweep(sweep).trial(number)
    return [paths.adapter, home.artifacts / record.run_id / "artifacts" / "adapter", paths.checkpoints]


def champion_of(home, sweep="sweep"):
    best = max(view_study(home.studies_db, sweep).records, key=lambda r: r.result.value)
    return best.number


def freed(home, dry_run=False, releases=False):
    return {kind.kind: kind for kind in collect_garbage(home, dry_run=dry_run, releases=releases)}


def test_losers_lose_their_adapters_and_the_sweep_goes_on(swept_home, tmp_path, capsys, monkeypatch):
    home, champion = swept_home, champion_of(swept_home)
    losers = {0, 1, 2} - {champion}
    before = size_of([home.dir])
    planned = freed(home, dry_run=True)
    assert size_of([home.dir]) == before
    assert set(planned) == {LOSERS}
    assert planned[LOSERS].count == 2
    assert freed(home) == planned
    assert before - size_of([home.dir]) == planned[LOSERS].size_bytes > 6000
    assert all(path.exists() for path in heavy(home, champion))
    assert not [path for number in losers for path in heavy(home, number) if path.exists()]
    assert not freed(home)
    assert run_main(capsys, monkeypatch, home.dir, "gc").out == "nothing to free\n"

    _, shown = swept(tmp_path, home.dir, search_strategy={"type": "random", "num_trials": 4})
    assert [trial["state"] for trial in shown["trials"]] == ["complete"] * 4
    assert shown["trials"][champion]["attempts"] == []


def test_a_running_or_unfinished_sweep_keeps_everything(swept_home):
    with sweep_lock(swept_home.sweep("sweep").lock):
        assert not freed(swept_home)
    set_state(swept_home, "state", "interrupted")
    assert not freed(swept_home)


def set_state(home, field, value):
    """Let the sweep have written down a value, as plain JSON."""
    store = open_storage(home.studies_db, "sweep")
    (study,) = store.get_all_studies()
    store.set_study_user_attr(study._study_id, field, value)


def test_finalists_and_what_another_sweep_took_over_are_kept(swept_home, tmp_path):
    home, champion = swept_home, champion_of(swept_home)
    strategy = {"type": "random", "num_trials": 3, "warm_start": ["sweep"]}
    swept(tmp_path, home.dir, name="heir", search_strategy=strategy, finalists={"top": 2, "seeds": 2})
    contestants = {c.trial for c in view_study(home.studies_db, "heir").state.finalists.contestants}
    records = {r.number: r.reused_from for r in view_study(home.studies_db, "heir").records}
    taken_over = [records[trial] for trial in contestants if records[trial]]
    assert taken_over
    kept = {champion} | {int(origin.split("/")[1]) for origin in taken_over}
    freed(home)
    for number in range(3):
        assert all(path.exists() for path in heavy(home, number)) == (number in kept)
    assert len(list(home.sweep("heir").dir.glob("finalists/*/result.json"))) >= 2


def test_an_adapter_that_another_sweep_started_from_is_kept(swept_home, tmp_path, monkeypatch):
    home = swept_home
    loser = next(number for number in range(3) if number != champion_of(home))
    start = heavy(home, loser)[0]
    monkeypatch.setattr("hpo.commands.gc.starting_points", lambda sweeps: [start.resolve()])
    assert freed(home)[LOSERS].count == 1
    assert start.exists()


def test_so_it_is_where_the_sweeps_are_on_another_disk(swept_home, tmp_path, monkeypatch):
    """A config has the place that a link leads to."""
    home = swept_home
    home.sweeps.rename(tmp_path / "disk")
    home.sweeps.symlink_to(tmp_path / "disk")
    test_an_adapter_that_another_sweep_started_from_is_kept(home, tmp_path, monkeypatch)
    discarded = tmp_path / "disk" / "sweep" / ".trial.deleted"
    discarded.write_text("left by a kill")
    assert freed(home)[CUT_SHORT].count == 1
    assert not discarded.exists()


def test_models_that_a_person_logged_are_not_those_of_a_release_that_was_cut_short(swept_home):
    home = swept_home
    folder = run_folder(home, view_study(home.studies_db, "sweep").records[0].run_id) / "artifacts"
    for name in ("model-champion", "model-0a1b2c3d"):
        (folder / name).mkdir(parents=True)
        (folder / name / "MLmodel").write_text("flavors: {}")
    assert freed(home)[CUT_SHORT].count == 1
    assert (folder / "model-champion" / "MLmodel").exists()
    assert not (folder / "model-0a1b2c3d").exists()


def test_trials_that_an_edit_left_out_lose_their_adapters_unless_one_is_released(swept_home, tmp_path):
    home = swept_home
    live = Release("shared", "1", "models:/shared@champion", "fp32", 1, "run")
    set_state(home, "release", to_json(live))
    files = {number: heavy(home, number) for number in range(3)}
    repeat = home.sweep("sweep").repeat(0, 0).adapter
    repeat.mkdir(parents=True)
    (repeat / "adapter_model.safetensors").write_bytes(b"x" * 1000)
    edited = {**SWEEP["training"], "batch_size": 4}
    swept(tmp_path, home.dir, search_strategy={"type": "random", "num_trials": 1}, training=edited)
    assert [record.number for record in view_study(home.studies_db, "sweep").records] == [3]
    assert free_losing_trials(home, "sweep") > 0
    assert LOSERS not in freed(home, dry_run=True)
    assert [number for number, paths in files.items() if any(path.exists() for path in paths)] == [1]
    assert not repeat.exists()
    assert not freed(home)


def test_prepared_data_and_variants_that_nobody_needs(swept_home):
    home = swept_home
    for folder in (home.tokens / "unused", home.sweep("sweep").release / "int8"):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x" * 500)
    for name in ("starting", "sweep"):  # it has not written down yet what it uses, nor after an edit
        with sweep_lock(home.sweep(name).lock):
            assert PREPARED not in freed(home, dry_run=True)
    found = freed(home)
    assert (found[PREPARED].size_bytes, found[VARIANTS].size_bytes) == (500, 500)
    assert not (home.tokens / "unused").exists()
    assert not home.sweep("sweep").release.exists()


@pytest.mark.parametrize("moment", ["view_study", "size_of"])
def test_prepared_data_stays_where_a_sweep_or_a_plan_begins_meanwhile(swept_home, monkeypatch, moment):
    """It may be the very data that it finds there: a sweep writes down later what it uses, and a plan never does."""
    home, look = swept_home, getattr(hpo.commands.gc, moment)
    rows = held_of_prepared(home.tokens / "unused")
    rows.parent.mkdir(parents=True)
    rows.write_bytes(b"x" * 500)
    with ExitStack() as begun, monkeypatch.context() as patch:

        def begins(*given):
            begun.callback(os.close, hold_shared(rows))
            return look(*given)

        patch.setattr(hpo.commands.gc, moment, begins)
        assert LOSERS in freed(home)
        assert rows.exists()
        assert not freed(home, dry_run=True)
    assert freed(home)[PREPARED].size_bytes == 500
    assert not rows.exists()


def test_prepared_data_that_are_being_written_stay_for_a_day(swept_home):
    home = swept_home
    folder = home.tokens / ".unused-a1b2"
    folder.mkdir(parents=True)
    (folder / "train.ids.npy").write_bytes(b"x" * 500)
    assert PREPARED not in freed(home)
    os.utime(folder, (time.time() - 86_401,) * 2)
    assert freed(home)[PREPARED].size_bytes == 500
    assert not folder.exists()


def test_what_a_restored_home_frees_no_sweep_can_begin_to_use(swept_home, monkeypatch):
    """No backup has the locks of sweeps."""
    home, look = swept_home, view_study
    home.sweep("sweep").lock.unlink()

    def looks(*given):
        assert is_locked(home.sweep("sweep").lock)
        return look(*given)

    monkeypatch.setattr("hpo.commands.gc.view_study", looks)
    assert freed(home)[LOSERS].count == 2


def test_what_was_deleted_in_mlflow_is_gone_for_good_but_for_what_a_release_needs(swept_home, tmp_path):
    home, store = swept_home, client(swept_home)
    release = registered(home, "other", 0.9)
    runs = [r.run_id for r in view_study(home.studies_db, "sweep").records]
    for run_id in (*runs[:2], release.run_id):
        store.delete_run(run_id)
    assert freed(home)[DELETED_RUNS].count == 2
    assert set(deleted_runs(home)) == {release.run_id}
    assert not (home.artifacts / runs[0]).exists()
    assert versions_of(home, "shared")[0].has_files()
    said, _ = swept(tmp_path, home.dir, search_strategy={"type": "random", "num_trials": 3})
    assert any("2 runs had been deleted and are written again" in line for line in said)
    assert len(runs_of(home, "sweep")) == 4


def test_releases_without_an_alias_go_only_where_that_is_asked_for(home_with_store, capsys, monkeypatch):
    home = Home(home_with_store)
    for quality in (0.8, 0.9, 0.95, 0.96):
        registered(home, "first", quality)
    with seats(home, "shared") as held:
        held.crown("2")
        held.crown("3")
        held.challenge("4", waits=True)
    folder = versions_of(home)[-1].folder()
    orphan = folder.parents[2] / "model-00000000"
    shutil.copytree(folder.parents[1], orphan)
    assert set(freed(home)) == {CUT_SHORT}
    assert not orphan.exists()
    shown = run_main(capsys, monkeypatch, home.dir, "gc", "--releases", "--dry-run").out
    assert RELEASES in shown
    assert "would be freed: hpo gc --releases frees it" in shown
    said = run_main(capsys, monkeypatch, home.dir, "gc", "--releases", "--json")
    assert [(kind["kind"], kind["count"]) for kind in json.loads(said.out)] == [(RELEASES, 1)]
    assert not folder.exists()
    assert [version.version for version in versions_of(home)] == ["4", "3", "2"]


def test_a_version_with_an_alias_that_a_person_gave_is_kept(home_with_store, capsys, monkeypatch):
    home = Home(home_with_store)
    for quality in (0.8, 0.9):
        registered(home, "first", quality)
    client(home).set_registered_model_alias("shared", "production", "1")
    assert freed(home, releases=True)[RELEASES].count == 1
    assert [version.version for version in versions_of(home)] == ["1"]
    assert versions_of(home)[0].has_files()
    refused = run_main(capsys, monkeypatch, home.dir, "delete", "shared/1")
    assert (refused.code, "version 1 of 'shared' is production: nothing was deleted" in refused.err) == (2, True)
    assert " production " in run_main(capsys, monkeypatch, home.dir, "releases").out


def test_a_copy_that_was_made_in_mlflow_keeps_its_files_when_its_original_goes(home_with_store):
    """As by the button "Promote model": the copy has a record of its own, and the files of the original."""
    home = Home(home_with_store)
    registered(home, "first", 0.8)
    store = client(home)
    store.copy_model_version("models:/shared/1", "production")
    store.set_registered_model_alias("production", "champion", "1")
    assert freed(home, releases=True)[RELEASES].count == 1
    assert not freed(home)
    (copy,) = versions_of(home)
    assert (copy.name, copy.has_files()) == ("production", True)
    assert copy.folder() == version_named(home, "production").folder()
    delete_versions(home, [copy])
    assert not copy.has_files()


@pytest.mark.parametrize("state", ["running", "failed"])
def test_what_a_sweep_or_a_night_has_just_registered_is_kept(home_with_store, state):
    """It gets its alias once it was compared: a night does that after its sweep, and tries again where that failed."""
    home = Home(home_with_store)
    registered(home, "first", 0.8)
    registered(home, "movies-2026-11-01", 0.9)
    steps = [Step("sweep", "", "", "")]
    night = NightRecord("movies", "2026-11-01", "UTC", "movies.yaml", state, steps=steps)
    NightFiles(home.nights("movies")).write(night)
    with sweep_lock(home.sweep("first").lock):
        assert RELEASES not in freed(home, releases=True)
    assert freed(home, releases=True)[RELEASES].count == 1
    NightFiles(home.nights("movies")).write(night.with_step(Step("promote", "", "", "")))
    assert freed(home, releases=True)[RELEASES].count == 1


def test_what_this_machine_keeps_as_a_node_goes_when_no_sweep_has_used_it_for_long(tmp_path, monkeypatch):
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "node"))
    for name, days in (("old", KEPT_DAYS + 1), ("fresh", KEPT_DAYS - 1)):
        weights = tmp_path / "node" / "inputs" / name / "weights"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"x" * 1000)
        os.utime(weights.parent, (time.time() - days * 86400,) * 2)
    home = Home(tmp_path / "home")
    planned = freed(home, dry_run=True)
    assert (planned[OF_NODE].count, planned[OF_NODE].size_bytes) == (1, 1000)
    assert freed(home) == planned
    assert [folder.name for folder in (tmp_path / "node" / "inputs").iterdir()] == ["fresh"]


def test_an_empty_home_has_nothing_to_free(tmp_path, capsys, monkeypatch):
    assert run_main(capsys, monkeypatch, tmp_path / "new", "gc").out == "nothing to free\n"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("step", range(0, 12, 2))
def test_after_a_kill_the_next_call_frees_the_rest(swept_home, monkeypatch, step):
    home, calls = swept_home, 0
    client(home).delete_run(view_study(home.studies_db, "sweep").records[0].run_id)
    registered(home, "other", 0.9)
    expected = freed(home, dry_run=True, releases=True)
    assert set(expected) == {LOSERS, DELETED_RUNS, RELEASES}

    def dying(real):
        def call(*arguments, **keywords):
            nonlocal calls
            calls += 1
            if calls > step:
                raise Killed
            return real(*arguments, **keywords)

        return call

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.rename", dying(type(home.dir).rename))
        patch.setattr("hpo.garbage.shutil.rmtree", dying(shutil.rmtree))
        with pytest.raises(Killed):
            collect_garbage(home, dry_run=False, releases=True)
    freed(home, releases=True)
    assert not freed(home, dry_run=True, releases=True)
    assert not deleted_runs(home)
    assert not versions_of(home)
    assert not list(home.dir.rglob("*.deleted"))
    champion = champion_of(home)
    assert heavy(home, champion)[0].exists()
    assert [path for n in range(3) if n != champion for path in heavy(home, n)[::2] if path.exists()] == []


def test_a_folder_is_there_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = tmp_path / "adapter"
    for attempt in range(2):
        folder.mkdir()
        (folder / "weights").write_text("x")
        with monkeypatch.context() as patch:
            patch.setattr("hpo.garbage.shutil.rmtree", lambda path: (_ for _ in ()).throw(Killed))
            if attempt == 0:
                with pytest.raises(Killed):
                    discard(folder)
        assert folder.exists() == bool(attempt)
    discard(folder)
    discard(folder)
    assert list(tmp_path.iterdir()) == []
