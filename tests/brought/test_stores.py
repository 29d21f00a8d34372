"""What people do to a home: labels, deletions, moves, locks and files that MLflow and the studies have to live with."""

from __future__ import annotations

import dataclasses
import json
import re
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_length_limit, _validate_metric_name, _validate_param_name

import hpo.sqlite
from hpo.errors import HpoError, SweepError
from hpo.home import Home
from hpo.metric_names import LONGEST, safe_name
from hpo.mlflow_store import client
from hpo.studies import storage
from hpo.sweep import run_sweep
from hpo.tracking import Tracker
from tests.hpo.builders import INSPECTION, Recording, Said, Sweep, evaluation, make_config, write_sweep
from trainers import fake
from trainers.spec import Failed, TrainRequest

ROOT = Path(__file__).parents[2]
SWEEP = {
    "name": "sweep",
    "search_strategy": {"type": "random", "num_trials": 2},
    "search_space": {"learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}},
    "training": {"max_examples": 100, "evaluations": 2},
    "pruner": {"type": "none"},
    "promote": False,
}


def swept(folder: Path, home: Path, **changes):
    """A sweep of the fake trainer, run or continued; returns what it said and how `hpo show --json` has it."""
    said = Said()
    shown = run_sweep(write_sweep(folder, **{**SWEEP, **changes}), Home(home), view=said, worker="trainers.fake")
    return said.lines, shown


def runs_of(home: Path):
    store = client(Home(home))
    experiment = store.get_experiment_by_name("hpo")
    return store, list(store.search_runs([experiment.experiment_id]))


def assert_mlflow_has_all(home: Path, shown) -> None:
    store, runs = runs_of(home)
    (parent,) = [run for run in runs if run.data.tags["hpo.kind"] == "sweep"]
    children = {run.data.tags["hpo.trial"]: run for run in runs if run.data.tags["hpo.kind"] == "trial"}
    assert len(runs) == 1 + len(children) == 1 + len(shown["trials"])
    for trial in shown["trials"]:
        run = children[str(trial["number"])]
        assert run.info.run_id == trial["run_id"]
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.metrics["best/f1_macro"] == trial["value"]
        history = store.get_metric_history(run.info.run_id, "validation/f1_macro")
        assert [m.value for m in history] == [value for _, value in trial["curve"]]


# --- names ---------------------------------------------------------------------------------------------

_LABELS = st.text(st.one_of(st.sampled_from("_x/.: #09afgzX\n"), st.characters(exclude_categories=())), max_size=12)


def _read_back(safe: str) -> str:
    return re.sub(r"_x([0-9a-f]*)_", lambda found: chr(int(found[1], 16)) if found[1] else "", safe)


@given(_LABELS)
@example("Books/")
@example("a//b")
@example("/etc")
@example("..")
@example("a/./b")
@example("_x23_")
@example("_x2#")
@example("#x")
@example("")
def test_every_name_is_one_that_mlflow_takes_and_can_be_read_back(name):
    safe = safe_name(name)
    _validate_metric_name(safe)
    _validate_param_name(safe)
    assert _read_back(safe) == name  # so no two are the same


@pytest.mark.parametrize(
    "name", ["validation/f1_macro", "f1/topic: sports", "f1/tf_xla", "f1/Grün", "f1/a b-c.d", "best_so_far/loss"]
)
def test_a_name_that_mlflow_takes_stays(name):
    assert safe_name(name) == name


def test_long_names_stay_different():
    names = [safe_name(f"validation/f1/{'a long label ' * 30}{end}") for end in ("one", "two", "\U0001f600")]
    for name in names:
        _validate_metric_name(name)
        _validate_length_limit("Metric name", LONGEST, name)
    assert len(set(names)) == 3
    assert safe_name(names[0]) != names[0]  # what looks like a cut name is none: the two stay different


LABELS = ["C#", "C?", "Books/", "/root", "..", "\U0001f600", "\U0001f680", "x" * 300 + "1", "x" * 300 + "2", "plain"]


def test_each_label_has_a_metric_of_its_own_in_mlflow_and_its_name_beside_it(home_with_store, tmp_path):
    config = make_config(tmp_path)
    tracker = Tracker(Home(home_with_store), config, INSPECTION)
    spec = config.trial_spec(
        0, {}, Home(home_with_store), INSPECTION, Home(home_with_store).sweep("sweep").trial(0), threads=1
    )
    from tests.hpo.test_tracking import begin

    run_id = begin(tracker, spec)
    metrics = {"f1_macro": 0.5, **{f"f1/{label}": number / 10 for number, label in enumerate(LABELS)}}
    tracker.evaluation(0, dataclasses.replace(evaluation(0, 1.0, 0.5), metrics=metrics))
    found = tracker._client.get_run(run_id).data.metrics
    path = tracker._client.download_artifacts(tracker.parent_id, "metric_names.json", str(tmp_path))
    names = json.loads(Path(path).read_text())
    told = {names.get(name, name): value for name, value in found.items()}
    assert {f"validation/f1/{label}": n / 10 for n, label in enumerate(LABELS)}.items() <= told.items()
    assert "validation/f1/plain" in found
    assert "validation/f1/C_x23_" in found


# --- deleted in MLflow ---------------------------------------------------------------------------------


@pytest.mark.parametrize("deleted", ["experiment", "parent", "child", "all runs"])
def test_what_was_deleted_in_mlflow_s_ui_comes_back_and_the_sweep_goes_on(tmp_path, home_with_store, deleted):
    swept(tmp_path, home_with_store)
    store, runs = runs_of(home_with_store)
    if deleted == "experiment":
        store.delete_experiment(runs[0].info.experiment_id)
    for run in runs:
        kind = {"sweep": "parent", "trial": "child"}[run.data.tags["hpo.kind"]]
        if deleted in (kind, "all runs"):
            store.delete_run(run.info.run_id)
    said, shown = swept(tmp_path, home_with_store, search_strategy={"type": "random", "num_trials": 3})
    assert len(shown["trials"]) == 3
    assert any("restored" in line for line in said)
    assert_mlflow_has_all(home_with_store, shown)


def delete_for_good(home: Path, *run_ids: str) -> None:
    """As `mlflow gc` does."""
    store = client(Home(home))._tracking_client.store
    for run_id in run_ids:
        store._hard_delete_run(run_id)


@pytest.mark.parametrize("kind", ["sweep", "trial"])
def test_runs_that_are_gone_for_good_are_written_again_from_the_study(tmp_path, home_with_store, kind):
    _, before = swept(tmp_path, home_with_store)
    runs = [run.info.run_id for run in runs_of(home_with_store)[1] if run.data.tags["hpo.kind"] == kind]
    delete_for_good(home_with_store, *runs)
    said, shown = swept(tmp_path, home_with_store)
    assert_mlflow_has_all(home_with_store, shown)
    assert [t["value"] for t in shown["trials"]] == [t["value"] for t in before["trials"]]
    assert shown["champion"]["run_id"] in {t["run_id"] for t in shown["trials"]}
    if kind == "trial":
        assert not {t["run_id"] for t in shown["trials"]} & set(runs)
        assert "MLflow: 2 runs had been deleted and are written again" in "\n".join(said)
    assert not any("written again" in line for line in swept(tmp_path, home_with_store)[0])


def test_repeats_of_finalists_are_written_again_too(tmp_path, home_with_store):
    finalists = {"finalists": {"top": 1, "seeds": 2}}
    swept(tmp_path, home_with_store, **finalists)
    runs = [run.info.run_id for run in runs_of(home_with_store)[1] if run.data.tags["hpo.kind"] == "repeat"]
    assert runs
    delete_for_good(home_with_store, runs[0])
    _, shown = swept(tmp_path, home_with_store, **finalists)
    now = {run.info.run_id: run for run in runs_of(home_with_store)[1] if run.data.tags["hpo.kind"] == "repeat"}
    told = {repeat["run_id"] for contestant in shown["finalists"]["contestants"] for repeat in contestant["repeats"]}
    assert set(now) == told
    assert len(now) == len(runs)
    assert all(run.data.metrics["best/f1_macro"] for run in now.values())


def test_a_store_that_was_thrown_away_is_made_anew(tmp_path, home_with_store, mlflow_database):
    swept(tmp_path, home_with_store)
    (home_with_store / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    _, shown = swept(tmp_path, home_with_store)
    assert_mlflow_has_all(home_with_store, shown)


# --- moved ---------------------------------------------------------------------------------------------


def test_a_home_that_was_moved_is_found_whole_and_nothing_is_written_where_it_was(tmp_path, home_with_store, capsys):
    swept(tmp_path, home_with_store)
    moved = tmp_path / "a new place" / "home"
    moved.parent.mkdir()
    home_with_store.rename(moved)
    _, shown = swept(tmp_path, moved, search_strategy={"type": "random", "num_trials": 3})
    assert "the home has moved" in capsys.readouterr().err
    assert not home_with_store.exists()
    assert_mlflow_has_all(moved, shown)
    store, runs = runs_of(moved)
    assert store.get_experiment_by_name("hpo").artifact_location == (moved / "artifacts").as_uri()
    for run in runs:
        assert run.info.artifact_uri.startswith((moved / "artifacts").as_uri())
        if run.data.tags["hpo.kind"] == "trial":
            assert "result.json" in {artifact.path for artifact in store.list_artifacts(run.info.run_id)}
    swept(tmp_path, moved)
    assert not capsys.readouterr().err


# --- locked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlflow.db", "studies.db"])
def test_a_database_that_another_process_locks_is_waited_for(tmp_path, home_with_store, monkeypatch, capsys, name):
    """The other process holds its lock for longer than one try of SQLite's takes."""
    monkeypatch.setattr(hpo.sqlite, "_AT_ONCE_S", 0.05)
    monkeypatch.setattr(hpo.sqlite, "_said", set())
    swept(tmp_path, home_with_store)
    file = home_with_store / name
    tries = shorten_tries(monkeypatch)
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")

    def let_go():
        while len(tries) < 3:
            time.sleep(0.01)
        other.execute("ROLLBACK")

    waiting = threading.Thread(target=let_go)
    waiting.start()
    _, shown = swept(tmp_path, home_with_store)
    waiting.join()
    other.close()
    assert shown["state"] == "complete"
    assert capsys.readouterr().err.count(f"{file} is locked by another process: waiting for it") == 1


def shorten_tries(monkeypatch) -> list[float]:
    """SQLite gives up after 0.1 s instead of 10 or 20; returns when it did."""
    tries: list[float] = []
    patiently = hpo.sqlite._patiently

    def impatiently(connection, step, *arguments):
        if arguments and str(arguments[0]).startswith("PRAGMA busy_timeout"):
            return None

        def tried(*given):
            sqlite3.Connection.cursor(connection, sqlite3.Cursor).execute("PRAGMA busy_timeout = 100")
            try:
                return step(*given)
            except sqlite3.OperationalError:
                tries.append(time.monotonic())
                raise

        return patiently(connection, tried, *arguments)

    monkeypatch.setattr(hpo.sqlite, "_patiently", impatiently)
    return tries


def test_a_lock_that_is_never_let_go_ends_with_the_way_out(tmp_path, home_with_store, monkeypatch):
    monkeypatch.setattr(hpo.sqlite, "_AT_ONCE_S", 0.05)
    monkeypatch.setattr(hpo.sqlite, "WAITS_S", 0.3)
    swept(tmp_path, home_with_store)
    shorten_tries(monkeypatch)
    other = sqlite3.connect(home_with_store / "mlflow.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(HpoError, match=r"locked.*when no other process holds it, the same command continues"):
        swept(tmp_path, home_with_store, search_strategy={"type": "random", "num_trials": 3})
    other.close()
    _, shown = swept(tmp_path, home_with_store, search_strategy={"type": "random", "num_trials": 3})
    assert_mlflow_has_all(home_with_store, shown)


# --- no database ---------------------------------------------------------------------------------------


def spoil(file: Path, how: str) -> None:
    if how == "a folder":
        file.mkdir(parents=True)
    elif how == "text":
        file.write_text("a note that somebody saved here\n" * 50)
    elif how == "cut short":
        file.write_bytes(b"SQLite format 3\0" + b"\0" * 84)
    elif how == "damaged":
        sqlite3.connect(file).executescript("CREATE TABLE studies (a); CREATE TABLE experiments (a);")
        content = bytearray(file.read_bytes())
        content[100:] = b"\xff" * (len(content) - 100)
        file.write_bytes(content)
    else:
        file.touch()


def command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "hpo", "--home", str(home), *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done


@pytest.mark.parametrize("how", ["a folder", "text", "cut short", "damaged"])
@pytest.mark.parametrize(
    "arguments",
    [("sweep", "FILE"), ("plan", "FILE"), ("show", "sweep"), ("list",), ("stop", "sweep")],
    ids=lambda arguments: arguments[0],
)
def test_studies_that_are_no_database_are_refused_in_one_message(tmp_path, how, arguments, capsys, monkeypatch):
    file = write_sweep(tmp_path, **SWEEP)
    home = tmp_path / "home"
    home.mkdir()
    spoil(home / "studies.db", how)
    said = run_main(capsys, monkeypatch, home, *(str(file) if word == "FILE" else word for word in arguments))
    assert said.code == 1
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert str(home / "studies.db") in said.err
    assert re.search("move it away|bring back a copy", said.err)
    assert not (home / "sweeps").exists()


@pytest.mark.parametrize("how", ["a folder", "text", "cut short", "damaged"])
@pytest.mark.parametrize("arguments", [("predict", "sweep", "a text"), ("ui",)], ids=lambda arguments: arguments[0])
def test_a_store_that_is_no_database_is_refused_in_one_message(tmp_path, how, arguments, capsys, monkeypatch):
    (tmp_path / "home").mkdir()
    spoil(tmp_path / "home" / "mlflow.db", how)
    monkeypatch.setattr("os.execv", lambda *_: pytest.fail("MLflow's server was started"))
    said = run_main(capsys, monkeypatch, tmp_path / "home", *arguments)
    assert said.code == 1
    assert said.err.count("\n") == 1
    assert str(tmp_path / "home" / "mlflow.db") in said.err
    assert re.search("move it away|bring back a copy", said.err)


@pytest.mark.parametrize("how", ["a folder", "text", "damaged"])
def test_a_sweep_whose_store_is_no_database_goes_on_when_it_is_mended(tmp_path, home_with_store, how, mlflow_database):
    (home_with_store / "mlflow.db").unlink()
    spoil(home_with_store / "mlflow.db", how)
    with pytest.raises(HpoError, match=r"mlflow\.db"):
        swept(tmp_path, home_with_store)
    aside = home_with_store / "mlflow.db"
    aside.rename(tmp_path / "aside")
    aside.write_bytes(mlflow_database.read_bytes())
    _, shown = swept(tmp_path, home_with_store)
    assert_mlflow_has_all(home_with_store, shown)


def test_databases_without_a_byte_are_none_yet(tmp_path, home):
    """A kill may leave a file that has nothing in it."""
    home.mkdir()
    (home / "mlflow.db").touch()
    (home / "studies.db").touch()
    assert command(home, "list").returncode == 0
    assert "no store" in command(home, "predict", "sweep", "a text").stderr
    _, shown = swept(tmp_path, home)
    assert_mlflow_has_all(home, shown)


def test_a_database_that_may_not_be_written_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "studies.db"
    sqlite3.connect(file).executescript("CREATE TABLE a (b);")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(HpoError, match=r"studies\.db: may not be written; give yourself the right"):
        storage(file)


@dataclasses.dataclass
class Ended:
    code: int
    out: str
    err: str


def run_main(capsys, monkeypatch, home: Path, *arguments: str) -> Ended:
    """The command in this process: its output, and how it ended."""
    from hpo.cli import main

    monkeypatch.setattr(sys, "argv", ["hpo", "--home", str(home), *arguments])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    told = capsys.readouterr()
    assert "Traceback" not in told.out + told.err
    return Ended(code, told.out, told.err)


# --- code and machines that crash, and are mended ------------------------------------------------------

LOSS = """
import torch.nn.functional as F

def loss(logits, targets):
    {first}
    return F.cross_entropy(logits, targets, reduction="none")
"""


def test_a_loss_that_raises_is_mended_and_the_same_command_trains_on(write_yaml, home_with_store, tmp_path):
    """All that was planned had crashed: under other code those crashes are none."""
    mine = tmp_path / "mine.py"
    mine.write_text(LOSS.format(first="raise ValueError('the wrong shape')"))
    file = write_yaml(
        training={"max_examples": 40, "evaluations": 1, "max_length": 32, "loss": "mine.py:loss"},
        trials={"retries": 0}, promote=False,
    )  # fmt: skip
    for _ in range(2):
        with pytest.raises(HpoError, match=r"no trial of tiny-encoder succeeded.*the wrong shape"):
            run_sweep(file, Home(home_with_store))
    mine.write_text(LOSS.format(first=""))
    shown = run_sweep(file, Home(home_with_store))
    assert [t["state"] for t in shown["trials"]] == ["complete", "complete"]
    assert shown["champion"] is not None
    assert shown["baseline"]["number"] == shown["trials"][0]["number"]
    assert shown["revisions"][-1]["left_out"] == 4


def test_trials_of_a_loss_as_it_was_are_left_out_when_it_is_edited(write_yaml, home_with_store, tmp_path):
    """What another loss trained does not compare."""
    mine = tmp_path / "mine.py"
    mine.write_text(LOSS.format(first=""))
    training = {"max_examples": 40, "evaluations": 1, "max_length": 32, "loss": "mine.py:loss"}
    file = write_yaml(training=training, promote=False, search_space={})
    run_sweep(file, Home(home_with_store))
    mine.write_text(LOSS.format(first="logits = logits * 2"))
    said = Said()
    shown = run_sweep(file, Home(home_with_store), view=said)
    assert [t["number"] for t in shown["trials"]] == [1]
    assert "  0 trials kept, 1 left out (they do not fit any more)" in said.lines


def test_a_machine_that_is_mended_tries_the_crashed_points_again(tmp_path):
    """A driver, a package, a module that the user's file imports: nothing that the sweep knows has changed."""

    def broken(request):
        if isinstance(request, TrainRequest):
            yield Failed("crash", "no driver")
        else:
            yield from fake.work(request)

    sweep = Sweep(tmp_path, search_strategy={"type": "random", "num_trials": 2}, trials={"retries": 0})
    for _ in range(2):
        with pytest.raises(SweepError, match="no driver"):
            sweep.search(Recording(broken))
    search = sweep.search()
    assert [r.state for r in sweep.records] == ["failed"] * 4 + ["complete"] * 2
    assert sweep.open().attrs()["baseline"] == 4
    assert search.finished_count == 2
    sweep.search(Recording(broken))  # all is done now
    assert len(sweep.records) == 6
