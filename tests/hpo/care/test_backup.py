"""Backups made while others write, and homes made of them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath

import pytest

from hpo.care.backup import make_backup
from hpo.care.manifest import CONTENT, MANIFEST, read_manifest
from hpo.care.restore import restore_backup
from hpo.care.tree_copy import TreeCopy
from hpo.commands.backup import restored_lines
from hpo.commands.show import read_sweep
from hpo.commands.sweep import run_sweep
from hpo.databases.sqlite import opened
from hpo.errors import HpoError, UsageError
from hpo.paths import Home
from hpo.release.deletion import delete_versions
from hpo.release.versions import versions_of
from hpo.study.store import view_study
from tests.hpo.builders import RATE, write_sweep
from tests.hpo.release.rivals import registered

ROOT = Path(__file__).parents[3]
FAKE = "trainers.host.fake"
RUN = """
import sys; from pathlib import Path; from hpo.commands.sweep import run_sweep; from hpo.paths import Home
run_sweep(Path(sys.argv[1]), Home(Path(sys.argv[2])), jobs=1, worker=sys.argv[3])"""
TRIALS = 6


@pytest.fixture(scope="module")
def sweep_file(tmp_path_factory):
    return write_sweep(
        tmp_path_factory.mktemp("sweep"), name="kept", search_space=RATE, promote=False, finalists=False,
        search_strategy={"type": "random", "num_trials": TRIALS}, training={"max_examples": 100, "evaluations": 3},
        pruner={"type": "none"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def stored(tmp_path_factory, mlflow_database):
    """Puts an empty store into a new home."""

    def new(name: str) -> Home:
        home = Home(tmp_path_factory.mktemp("homes") / name)
        home.dir.mkdir()
        shutil.copy(mlflow_database, home.dir)
        return home

    return new


@pytest.fixture(scope="module")
def undisturbed(sweep_file, stored):
    """A home in which the sweep ran to its end."""
    home = stored("undisturbed")
    run_sweep(sweep_file, home, jobs=1, worker=FAKE)
    return home


def test_a_sweep_that_was_killed_continues_from_a_backup_made_while_it_ran(sweep_file, stored, undisturbed, tmp_path):
    home, backup = stored("killed"), tmp_path / "backup"
    process = subprocess.Popen([sys.executable, "-c", RUN, sweep_file, home.dir, FAKE], cwd=ROOT)
    try:
        while len(list(home.dir.glob("sweeps/kept/trials/*/result.json"))) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        make_backup(home, backup)
        assert process.poll() is None, "too quick to be copied while it runs"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert_stands(Home(backup / CONTENT))
    shutil.rmtree(home.dir)

    there = Home(tmp_path / "elsewhere")
    restored = restore_backup(there, backup)
    assert restored.sweeps == ["kept"]
    assert "nightly" not in "\n".join(restored_lines(restored))
    (there.dir / "nights").mkdir()
    assert "nightly FILE" in "\n".join(restored_lines(restored))
    assert read_sweep(there, "kept").state == "interrupted"
    run_sweep(sweep_file, there, jobs=1, worker=FAKE)
    ours, theirs = read_sweep(there, "kept"), read_sweep(undisturbed, "kept")
    assert ours.state == "complete"
    assert [(t.number, t.params, t.value) for t in ours.trials] == [
        (t.number, t.params, t.value) for t in theirs.trials
    ]
    assert ours.champion
    assert theirs.champion
    assert dataclasses.replace(ours.champion, run_id="") == dataclasses.replace(theirs.champion, run_id="")
    with opened(there.mlflow_db) as store:
        places = [row[0] for row in store.execute("SELECT artifact_uri FROM runs").fetchall()]
        states = [row[0] for row in store.execute("SELECT status FROM runs").fetchall()]
    assert all(place.startswith(there.artifacts.as_uri()) for place in places)
    assert states == ["FINISHED"] * (TRIALS + 1)


def assert_stands(home: Home) -> None:
    """Each trial that is over in the study has its result on disk and its run in MLflow."""
    over = [record for record in view_study(home.studies_db, "kept").records if record.is_over]
    assert over
    with opened(home.mlflow_db) as store:
        ended = {row[0] for row in store.execute("SELECT run_uuid FROM runs WHERE status = 'FINISHED'").fetchall()}
    for record in over:
        assert home.sweep("kept").trial(record.number).result.exists()
        assert record.run_id in ended


class Disturbed(TreeCopy):
    """A copy with a writer that acts just before a file is copied, once."""

    def __init__(self, source, target, before, act):
        super().__init__(source, target)
        self._before, self._act = before, act

    def copy_file(self, path):
        if self._act and path.name == self._before:
            act, self._act = self._act, None
            act()
        super().copy_file(path)


def checkpoint(folder: Path, step: int) -> None:
    (folder / f".{step}.new").mkdir(parents=True)
    for name in ("a", "b", "c"):
        (folder / f".{step}.new" / name).write_text(str(step))
    (folder / f".{step}.new").rename(folder / str(step))


def contents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("killed", [False, True], ids=["removed", "half removed"])
def test_a_checkpoint_that_is_replaced_while_it_is_copied_is_copied_whole(tmp_path, killed):
    """The old one goes file by file; a kill in between leaves a part of it, beside the new one."""
    home, folder = tmp_path / "home", tmp_path / "home" / "trial" / "checkpoints"
    checkpoint(folder, 4)

    def replaced() -> None:
        checkpoint(folder, 8)
        for name in ("a", "b", *(() if killed else ("c",))):
            (folder / "4" / name).unlink()
        if not killed:
            (folder / "4").rmdir()

    copy = Disturbed(home, tmp_path / "copy", "b", replaced)
    copy.copy()
    assert contents(tmp_path / "copy") == contents(home)
    assert set(copy.files) == set(contents(home))
    assert contents(folder / "8") == {"a": "8", "b": "8", "c": "8"}


def test_a_folder_that_takes_the_place_of_another_leaves_nothing_of_it(tmp_path):
    home, adapter = tmp_path / "home", tmp_path / "home" / "adapter"
    for folder, names in ((adapter, "ab"), (tmp_path / "other", "bc")):
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_text(folder.name)

    def replaced() -> None:
        shutil.rmtree(adapter)
        (tmp_path / "other").rename(adapter)

    Disturbed(home, tmp_path / "copy", "b", replaced).copy()
    assert contents(tmp_path / "copy") == {"adapter/b": "other", "adapter/c": "other"}


def test_what_is_on_its_way_to_another_name_is_not_copied(tmp_path):
    home = tmp_path / "home"
    for name in (".result.json.tmp", "studies.db-journal", "result.json"):
        home.mkdir(exist_ok=True)
        (home / name).write_text("x")
    (home / ".adapter.new").mkdir()
    (home / ".adapter.new" / "part").write_text("x")
    TreeCopy(home, tmp_path / "copy").copy()
    assert contents(tmp_path / "copy") == {"result.json": "x"}


@pytest.fixture
def backup(undisturbed, tmp_path) -> Path:
    make_backup(undisturbed, tmp_path / "backup")
    return tmp_path / "backup"


def test_cache_and_locks_are_in_no_backup(undisturbed, tmp_path):
    (undisturbed.cache / "tokens").mkdir(parents=True)
    (undisturbed.cache / "tokens" / "x").touch()
    manifest = make_backup(undisturbed, tmp_path / "backup")
    names = {PurePosixPath(file.path).name for file in manifest.files}
    assert {"studies.db", "mlflow.db", "result.json", "spec.json", "timeline.jsonl"} <= names
    assert not names & {"x", "lock", "mlflow.lock"}
    assert set(manifest.schemas) == {"studies.db", "mlflow.db"}
    assert read_manifest(tmp_path / "backup") == manifest


def test_a_part_of_a_home_that_is_on_another_disk_is_in_the_backup(stored, tmp_path):
    home, disk = stored("linked"), tmp_path / "disk"
    for name, folder in (("kept", home.sweep("kept").dir), ("nights", home.dir / "nights")):
        (disk / name / "deep").mkdir(parents=True)
        (disk / name / "deep" / "result.json").write_text(name)
        (disk / name / "deep" / "circle").symlink_to(disk)
        folder.parent.mkdir(exist_ok=True)
        folder.symlink_to(disk / name)
    manifest = make_backup(home, tmp_path / "backup")
    names = [file.path for file in manifest.files]
    assert names == ["mlflow.db", "nights/deep/result.json", "sweeps/kept/deep/result.json"]


def test_since_links_what_has_not_changed(undisturbed, backup, tmp_path):
    make_backup(undisturbed, tmp_path / "next", backup)
    result = "sweeps/kept/trials/0000/result.json"
    assert (tmp_path / "next" / CONTENT / result).samefile(backup / CONTENT / result)
    assert not (tmp_path / "next" / CONTENT / "studies.db").samefile(backup / CONTENT / "studies.db")
    restore_backup(Home(tmp_path / "new"), tmp_path / "next")


def damage(file: Path) -> None:
    file.write_bytes(b"X" + file.read_bytes()[1:])


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda home: damage(home / "sweeps/kept/trials/0000/result.json"), "has changed since"),
        (lambda home: (home / "mlflow.db").unlink(), "is missing"),
        (lambda home: (home / "more").touch(), "not in the manifest"),
        (lambda home: (home / "more").symlink_to("/etc"), "not in the manifest"),
    ],
)
def test_a_backup_that_has_changed_is_refused_and_nothing_is_written(backup, tmp_path, act, says):
    act(backup / CONTENT)
    with pytest.raises(HpoError, match=says):
        restore_backup(Home(tmp_path / "new"), backup)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("schemas", {"studies.db": "v99.0.0.a"}, "later optuna"),
        ("format", 99, "newer hpo"),
        ("files", [{"path": "../../etc/x", "size": 0, "sha256": ""}], "leads out"),
    ],
)
def test_a_manifest_of_a_later_version_or_of_another_hand_is_refused(backup, tmp_path, key, value, says):
    manifest = json.loads((backup / MANIFEST).read_text())
    (backup / MANIFEST).write_text(json.dumps({**manifest, key: value}))
    with pytest.raises(HpoError, match=says):
        restore_backup(Home(tmp_path / "new"), backup)


def test_a_home_in_use_is_not_restored_into_and_no_place_is_overwritten(undisturbed, backup, tmp_path):
    with pytest.raises(UsageError, match="not empty"):
        restore_backup(undisturbed, backup)
    with pytest.raises(UsageError, match="already exists"):
        make_backup(undisturbed, backup)
    with pytest.raises(UsageError, match="in the home itself"):
        make_backup(undisturbed, undisturbed.dir / "backup")
    with pytest.raises(UsageError, match="not a backup"):
        restore_backup(Home(tmp_path / "new"), tmp_path)
    with pytest.raises(UsageError, match="nothing to back up"):
        make_backup(Home(tmp_path / "none"), tmp_path / "other")


def test_a_home_that_a_killed_restore_has_left_half_full_says_so(backup, tmp_path):
    """Some files were in their places already, the databases not."""
    home = Home(tmp_path / "new")
    for name in (".restored", "sweeps"):
        (home.dir / name).mkdir(parents=True)
    with pytest.raises(UsageError, match=r"not empty \(.*sweeps\), as a restore that was killed left it: empty it"):
        restore_backup(home, backup)
    (home.dir / "sweeps").rmdir()
    assert restore_backup(home, backup).sweeps == ["kept"]


def test_released_models_are_found_in_the_new_place(stored, tmp_path):
    home, there = stored("released"), Home(tmp_path / "there")
    registered(home, "first", 0.9)
    make_backup(home, tmp_path / "backup")
    shutil.rmtree(home.dir)
    restore_backup(there, tmp_path / "backup")
    [version] = versions_of(there, "shared")
    assert version.folder().is_relative_to(there.artifacts)
    assert (version.folder() / "release.json").exists()


def test_a_sweep_may_be_called_as_a_lock_is_and_what_kills_left_is_in_no_backup(stored, tmp_path):
    """With the folder of a restore that was killed in it, no backup could be restored."""
    home = stored("odd")
    for path in ("sweeps/team.lock/trials/0000/result.json", "artifacts/1/artifacts/uv.lock", "nights/lock/page.html",
                 ".restored/mlflow.db", "upgrade.new/mlflow.db", "sweeps/team.lock/lock", "nights/lock/lock",
                 "ledgers/x.lock", "mlflow.lock"):  # fmt: skip
        (home.dir / path).parent.mkdir(parents=True, exist_ok=True)
        (home.dir / path).touch()
    manifest = make_backup(home, tmp_path / "backup")
    assert [file.path for file in manifest.files] == [
        "artifacts/1/artifacts/uv.lock", "mlflow.db", "nights/lock/page.html",
        "sweeps/team.lock/trials/0000/result.json",
    ]  # fmt: skip
    restore_backup(Home(tmp_path / "there"), tmp_path / "backup")


def test_a_release_that_is_deleted_while_it_is_copied_leaves_no_backup(stored, tmp_path, monkeypatch):
    """Its record would be in the copy, and its files not."""
    home = stored("deleted")
    registered(home, "first", 0.9)
    copy = TreeCopy.copy

    def deleting(tree, *folder):
        if not folder:
            delete_versions(home, versions_of(home))
        copy(tree, *folder)

    monkeypatch.setattr(TreeCopy, "copy", deleting)
    with pytest.raises(HpoError, match=r"^shared/1: deleted while it was copied; there is no backup"):
        make_backup(home, tmp_path / "backup")
    assert list(tmp_path.iterdir()) == []
