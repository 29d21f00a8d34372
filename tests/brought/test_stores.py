"""What people do to a home: labels, deletions, moves, locks and files that MLflow and the studies have to live with."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import sqlite3
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_length_limit, _validate_metric_name, _validate_param_name

import hpo.databases.sqlite
from hpo.commands.sweep import run_sweep
from hpo.config.trial_specs import TrialSpecs
from hpo.databases.studies import StudiesDatabase
from hpo.errors import HostGone, HpoError, RequestFailed, SweepError
from hpo.executors.base import here
from hpo.paths import Home
from hpo.release.challenge import refuse_useless
from hpo.release.ruling import rule_on
from hpo.release.versions import Version
from hpo.remedies import way_on
from hpo.results.champion import Champion
from hpo.results.released import Release as RegisteredRelease
from hpo.study.storage import open_storage
from hpo.tracking.metric_names import LONGEST, safe_name
from hpo.tracking.mlflow_store import client
from hpo.tracking.mlflow_tracker import Tracker
from tests.command_line import hpo_here
from tests.conftest import answered_here
from tests.hpo.builders import INSPECTION, Recording, Said, Sweep, evaluation, make_config, trial_result, write_sweep
from trainers.export.measure import _by_name
from trainers.host import fake
from trainers.metrics.constant import constant_rows
from trainers.metrics.table import ROW_RESULTS
from trainers.protocol.codec import to_json
from trainers.protocol.events import Failed
from trainers.protocol.requests import Train
from trainers.runtime.card import Card
from trainers.runtime.inputs import read_input
from trainers.runtime.tag import Tagger
from trainers.runtime.write import Writer

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
    file = write_sweep(folder, **{**SWEEP, **changes})
    with answered_here():
        shown = run_sweep(file, Home(home), view=said, worker="trainers.host.fake")
    return said.lines, shown.to_json()


def runs_of(home: Path):
    store = client(Home(home))
    experiment = store.get_experiment_by_name("sweep")
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
    spec = TrialSpecs(config, Home(home_with_store), INSPECTION).spec(
        0, {}, Home(home_with_store).sweep("sweep").trial(0)
    )
    from tests.hpo.tracking.test_mlflow_tracker import begin

    run_id = begin(tracker, spec)
    metrics = {"f1_macro": 0.5, **{f"f1/{label}": number / 10 for number, label in enumerate(LABELS)}}
    tracker.evaluation(0, dataclasses.replace(evaluation(0, 1.0, 0.5), metrics=metrics))
    tracker.settle()
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
    assert store.get_experiment_by_name("sweep").artifact_location == (moved / "artifacts").as_uri()
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
    monkeypatch.setattr(hpo.databases.sqlite, "_AT_ONCE_S", 0.05)
    monkeypatch.setattr(hpo.databases.sqlite, "_said", set())
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
    assert capsys.readouterr().err.count(f"{file} is locked by another process: waiting, at most") == 1


def shorten_tries(monkeypatch) -> list[float]:
    """SQLite gives up after 0.1 s instead of 10 or 20; returns when it did."""
    tries: list[float] = []
    patiently = hpo.databases.sqlite._patiently

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

    monkeypatch.setattr(hpo.databases.sqlite, "_patiently", impatiently)
    return tries


def test_a_lock_that_is_never_let_go_ends_with_the_way_out(tmp_path, home_with_store, monkeypatch):
    monkeypatch.setattr(hpo.databases.sqlite, "_AT_ONCE_S", 0.05)
    monkeypatch.setattr(hpo.databases.sqlite, "WAITS_S", 0.3)
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
    assert re.search("move it away|restore a backup", said.err)
    assert not (home / "sweeps").exists()


@pytest.mark.parametrize("how", ["a folder", "text", "cut short", "damaged"])
@pytest.mark.parametrize("arguments", [("predict", "sweep", "a text"), ("ui",)], ids=lambda arguments: arguments[0])
def test_a_store_that_is_no_database_is_refused_in_one_message(tmp_path, how, arguments, capsys, monkeypatch):
    (tmp_path / "home").mkdir()
    spoil(tmp_path / "home" / "mlflow.db", how)
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("MLflow's server was started"))
    said = run_main(capsys, monkeypatch, tmp_path / "home", *arguments)
    assert said.code == 1
    assert said.err.count("\n") == 1
    assert str(tmp_path / "home" / "mlflow.db") in said.err
    assert re.search("move it away|restore a backup", said.err)


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
    assert hpo_here("list", home=home).returncode == 0
    assert "there is no database" in hpo_here("predict", "sweep", "a text", home=home).stderr
    _, shown = swept(tmp_path, home)
    assert_mlflow_has_all(home, shown)


def test_a_database_that_may_not_be_written_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "studies.db"
    sqlite3.connect(file).executescript("CREATE TABLE a (b);")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(HpoError, match=r"studies\.db: cannot be written; give yourself permission"):
        open_storage(StudiesDatabase.in_file(file), "sweep")


@dataclasses.dataclass
class Ended:
    code: int
    out: str
    err: str


def run_main(capsys, monkeypatch, home: Path, *arguments: str) -> Ended:
    """The command in this process: its output, and how it ended."""
    from hpo.cli.main import main

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


@pytest.mark.usefixtures("requests_here")
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
    shown = run_sweep(file, Home(home_with_store)).to_json()
    assert [t["state"] for t in shown["trials"]] == ["complete", "complete"]
    assert shown["champion"] is not None
    assert shown["baseline"]["number"] == shown["trials"][0]["number"]
    assert shown["revisions"][-1]["left_out"] == 4


@pytest.mark.usefixtures("requests_here")
def test_trials_of_a_loss_as_it_was_are_left_out_when_it_is_edited(write_yaml, home_with_store, tmp_path):
    """What another loss trained does not compare."""
    mine = tmp_path / "mine.py"
    mine.write_text(LOSS.format(first=""))
    training = {"max_examples": 40, "evaluations": 1, "max_length": 32, "loss": "mine.py:loss"}
    file = write_yaml(training=training, promote=False, search_space={})
    run_sweep(file, Home(home_with_store))
    mine.write_text(LOSS.format(first="logits = logits * 2"))
    said = Said()
    shown = run_sweep(file, Home(home_with_store), view=said).to_json()
    assert [t["number"] for t in shown["trials"]] == [1]
    assert "  0 trials kept, 1 left out (they do not fit any more)" in said.lines


def test_a_machine_that_is_mended_tries_the_crashed_points_again(tmp_path):
    """A driver, a package, a module that the user's file imports: nothing that the sweep knows has changed."""

    def broken(request):
        if isinstance(request, Train):
            yield Failed("crash", "no driver")
        else:
            yield from fake.work(request)

    sweep = Sweep(tmp_path, search_strategy={"type": "random", "num_trials": 2}, trials={"retries": 0})
    for _ in range(2):
        with pytest.raises(SweepError, match="no driver"):
            sweep.search(Recording(broken))
    search = sweep.search()
    assert [r.state for r in sweep.records] == ["failed"] * 4 + ["complete"] * 2
    assert sweep.open().state.baseline == 4
    assert search.finished_count == 2
    sweep.search(Recording(broken))  # all is done now
    assert len(sweep.records) == 6


# --- what a champion has to beat -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "rows", "labels", "metrics"),
    [
        ("regression", [[1.0, 9.0], [2.0, 9.0], [6.0, 9.0]], [], {"r2": 0.0, "mae": 2.0, "spearman": 0.0}),
        ("text-similarity", [[0.0, 1.0], [1.0, 0.0]], [], {"pearson": 0.0, "rmse": 0.5}),
        (
            "text-classification",
            [[0, 1, 5.0, 0.1, 0.9], [0, 1, 5.0, 0.1, 0.9], [0, 1, 5.0, 0.1, 0.9], [1, 0, 5.0, 0.9, 0.1]],
            ["a", "b"],
            {"accuracy": 0.75, "f1_macro": 3 / 7, "mcc": 0.0, "roc_auc": 0.5, "loss": 0.5623351},
        ),
        (
            "multi-label-classification",
            [[9.0, 1, 0, 0.1, 0.9], [9.0, 1, 0, 0.1, 0.9], [9.0, 1, 1, 0.1, 0.9], [9.0, 0, 0, 0.1, 0.9]],
            ["a", "b"],
            {"f1_micro": 6 / 8, "accuracy": 0.5, "loss": 0.5623351, "f1/b": 0.0},
        ),
        (  # no label is on more than half of the rows: the most frequent one is answered
            "multi-label-classification",
            [[9.0, 1, 0, 0.1, 0.9], [9.0, 0, 1, 0.1, 0.9], [9.0, 1, 0, 0.1, 0.9], [9.0, 0, 0, 0.1, 0.9]],
            ["a", "b"],
            {"f1/a": 2 / 3, "f1/b": 0.0},
        ),
        (
            "token-classification",
            [[1.0, 4, 3, 1, 2, 2, 1, 2, 2, 2, 1, 3]],
            ["B-X", "O"],
            {"entity_f1": 0.0, "token_accuracy": 3 / 4, "f1_macro": 3 / 7, "f1/O": 6 / 7},
        ),
        (
            "token-classification",
            [[1.0, 4, 3, 3, 4, 4, 1, 2, 2, 2, 1, 3]],
            ["NOUN", "VERB"],
            {"entity_f1": 3 / 4, "token_accuracy": 3 / 4, "f1/NOUN": 0.0},
        ),
    ],
)  # fmt: skip
def test_the_best_answer_that_is_always_the_same(task, rows, labels, metrics):
    constant = constant_rows(task, np.array(rows, dtype=float), labels)
    found = ROW_RESULTS[task].metrics(constant, labels)
    assert {name: found[name] for name in metrics} == pytest.approx(metrics)


@pytest.mark.parametrize("task", ["chat", "causal-lm", "instruct", "text-to-text"])
def test_tasks_that_write_have_no_constant_answer(task):
    assert constant_rows(task, np.ones((2, 4)), []) is None


PRICES = [100.0, 200.0, 600.0]


@pytest.mark.parametrize(
    ("predicted", "objective", "is_refused"),
    [
        ([300.0, 300.0, 300.0], {"metric": "mae"}, True),  # the mean itself
        ([900.0, 100.0, 50.0], {"metric": "rmse"}, True),
        ([110.0, 190.0, 590.0], {"metric": "rmse"}, False),
        ([600.0, 200.0, 100.0], {"metric": "spearman"}, True),
        ([1.0, 2.0, 3.0], {"metric": "spearman"}, False),  # far off, and in the right order
        ([1.0, 2.0, 3.0], {"metric": "r2"}, True),
    ],
)
def test_a_champion_that_is_no_better_than_the_mean_is_not_promoted(tmp_path, predicted, objective, is_refused):
    sweep = Sweep(tmp_path, task="regression", objective=objective, search_space={})
    rows = np.stack([PRICES, predicted], axis=1)
    metrics = ROW_RESULTS["regression"].metrics(rows, [])
    name = objective["metric"]
    result = trial_result("complete", metrics[name], metrics=metrics)
    paths = sweep.paths(0)
    paths.rows(0).parent.mkdir(parents=True)
    np.save(paths.rows(0), rows)
    paths.result.write_text(json.dumps(to_json(result)))
    champion = Champion(0, metrics[name], metrics, {}, "run")

    class Running:
        config, inspection, executor = sweep.config, INSPECTION, SimpleNamespace(fetch=here)

        def champion_paths(self, champion):
            return paths

    told = refuse_useless(Running(), champion)
    assert (told is not None) == is_refused
    if told:
        assert told.startswith("trial 0 is no better than always answering the mean of the values: ")
        assert f"{name} {metrics[name]:.4f} against" in told
        assert "promote: {allow_useless: true}" in told
    promote = dataclasses.replace(sweep.config.promote, allow_useless=True)
    Running.config = dataclasses.replace(sweep.config, promote=promote)
    assert refuse_useless(Running(), champion) is None


@pytest.mark.parametrize(
    ("task", "base", "told"),
    [
        ("regression", "0" * 64, "(it is a model for regression)"),
        ("chat", "f" * 64, "(it has another base model, so its tokens differ)"),
    ],
)
def test_a_release_that_cannot_be_compared_keeps_its_name(tmp_path, monkeypatch, task, base, told):
    data = {"train": "train.jsonl"}
    mine = "chat" if task == "chat" else "text-classification"
    sweep = Sweep(tmp_path, task=mine, data=data, search_space={}, promote={"name": "shared"})
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "release.json").write_text(json.dumps(dataclasses.asdict(Card(task, "fp32", (), 32, 0))))
    (folder / "manifest.json").write_text(json.dumps({"sha256": {"base": base}}))
    old = Version("shared", "7", "other", "")
    monkeypatch.setattr(Version, "folder", lambda self: folder)
    monkeypatch.setattr("hpo.release.ruling.version_of", lambda home, name, version: old)
    release = RegisteredRelease("shared", "8", "", "fp32", 3, "run")
    running = sweep.running()
    ruling = rule_on(running, release, old)
    assert ruling.decision == "refused"
    assert ruling.why == f"version 7 of sweep 'other': version 8 cannot be compared with it {told}"
    wanted = dataclasses.replace(running.config.promote, replace=True)
    specs = dataclasses.replace(running.specs, config=dataclasses.replace(running.config, promote=wanted))
    assert rule_on(dataclasses.replace(running, specs=specs), release, old).decision == "champion"


@pytest.mark.parametrize(
    ("rows", "labels", "told"),
    [
        ([{"text": "a", "label": 0}], ["unheard of"], "it has no label 'unheard of'"),
        ([{"text": "a", "text_pair": "b", "label": 0}], ["a"], "it classifies text, but these rows have other columns"),
    ],
)
def test_a_release_that_cannot_judge_the_rows_says_why(rows, labels, told):
    card = Card("text-classification", "fp32", ("b", "a"), 32, 0)
    with pytest.raises(ValueError, match=told):
        _by_name(rows, labels, card)


def test_labels_of_other_data_are_matched_by_name():
    card = Card("text-classification", "fp32", ("c", "b", "a"), 32, 0)
    assert _by_name([{"text": "x", "label": 0}, {"text": "y", "label": 1}], ["a", "b"], card) == [
        {"text": "x", "label": 2}, {"text": "y", "label": 1}
    ]  # fmt: skip
    (row,) = _by_name([{"text": "x", "labels": [1, 0]}], ["a", "b"], card)
    assert row["labels"] == [0, 0, 1]


# --- text that is no text ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("", "input 0: is empty; expected a text of at least one token"),
        (" \n", "input 0: is empty; expected a text of at least one token"),
        ("half \ud83d of it", "input 0: character 6 is half a character (a lone surrogate, or a byte that"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), "input 0: character 4 is half a character"),
        ("a\0b", "input 0: character 2 is NUL; expected text in UTF-8"),
        ([{"role": "user", "content": "half \ud83d"}], "input 0: character 6 is half a character"),
        ('[{"role": "user", "content": "half \\ud83d"}]', "JSON: character 6 is half a character"),
        ({"text": "a", "text_pair": "\udcff"}, "input 0: character 1 is half a character"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_refused_before_a_model_is_asked(given, told):
    release = Writer.__new__(Writer)
    release.card = Card("chat", "fp32", (), 32, 0)
    with pytest.raises(ValueError, match=re.escape(told)):
        release.predict([given])


def test_where_there_is_no_word_there_is_no_entity():
    release = Tagger.__new__(Tagger)
    release.card = Card("token-classification", "fp32", ("B-X", "O"), 32, 0)
    assert release.predict(["", " "]) == [{"entities": []}] * 2


@pytest.mark.parametrize("text", ["[{" + "[" * 100_000, '[{"role"', "[{}]"])
def test_what_only_looks_like_a_chat_s_json_ends_in_no_traceback(text):
    taken = read_input(text, "input 0", "chat")
    assert taken == (text if text != "[{}]" else [{}])


def test_a_chat_in_json_is_read_alike_by_hpo_predict_mlflow_and_the_runtime():
    """The messages, and not one user text that holds their JSON."""
    messages = [{"role": "user", "content": "what is warm"}]
    assert read_input(json.dumps(messages), "input 0", "chat") == messages
    assert read_input(json.dumps(messages), "input 0", "text-classification") == json.dumps(messages)
    assert "json" not in (ROOT / "hpo/release/mlflow_model.py").read_text()


@pytest.mark.parametrize("name", ["half\udcff", "", "a/b", "\0"])
def test_a_name_that_is_no_name_ends_in_one_message(home_with_store, capsys, monkeypatch, name):
    asked = run_main(capsys, monkeypatch, home_with_store, "predict", name, "a text")
    assert asked.code == 2
    assert asked.err.startswith("error: no released model")
    for words in (["show", name], ["stop", name]):
        assert run_main(capsys, monkeypatch, home_with_store, *words).code == 2


# --- what a failure leaves, and what it says -----------------------------------------------------------


@pytest.mark.parametrize("failure", ["crash", "host", "interrupt", "oom"])
def test_nothing_is_left_of_a_sweep_that_fails_before_it_begins(tmp_path, monkeypatch, failure):
    home = Home(tmp_path / "home")

    def inspect(executor, config, home):
        log = home.sweep(config.name).host_log
        log.write_text(
            "".join(f"line {n}\n" for n in range(100)) + "ZeroDivisionError: in mine.py, line 3\n" + "x" * 9999
        )
        raise {
            "crash": RequestFailed("crash: ZeroDivisionError", "crash"),
            "host": HostGone("the trial host ended unexpectedly"),
            "oom": RequestFailed("oom: no memory", "oom"),
            "interrupt": KeyboardInterrupt(),
        }[failure]

    monkeypatch.setattr("hpo.commands.preflight.inspect", inspect)
    with pytest.raises(HpoError) as ended:
        run_sweep(write_sweep(tmp_path, **SWEEP), home, worker="trainers.host.fake")
    assert not home.dir.exists()
    if failure == "interrupt":
        assert str(ended.value) == "interrupted; the same command continues"  # from the beginning, where it was
        return
    told = str(ended.value)
    assert told.startswith("reading data and model failed: ")
    assert "the end of its log:" in told
    assert "ZeroDivisionError: in mine.py, line 3" in told
    assert len(told) < 3000
    assert "line 50" not in told


def test_results_that_outlived_their_database_are_not_taken_away(tmp_path, home_with_store, monkeypatch):
    swept(tmp_path, home_with_store)
    (home_with_store / "studies.db").unlink()

    def fails(*given):
        raise RequestFailed("crash: x")

    with monkeypatch.context() as patch:
        patch.setattr("hpo.commands.preflight.inspect", fails)
        with pytest.raises(HpoError):
            swept(tmp_path, home_with_store)
    assert len(list(home_with_store.glob("sweeps/sweep/trials/*/result.json"))) == 2
    _, shown = swept(tmp_path, home_with_store)
    assert len(shown["trials"]) == 2


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "make room; then the same command continues"),
        (errno.ENOTDIR, "move away the file or folder that blocks this path; then the same command continues"),
        (errno.EACCES, "give yourself permission to read and write there; then the same command continues"),
        (errno.EROFS, "mount it with write access, or choose another --home; then the same command continues"),
        (errno.ENAMETOOLONG, "choose a shorter path or name; then the same command continues"),
        (errno.EIO, "fix that; then the same command continues"),
    ],
)
def test_a_disk_that_fails_says_what_to_mend_first_and_then_the_same_command_continues(
    tmp_path, home_with_store, monkeypatch, number, told
):
    def fails(*given):
        raise OSError(number, os.strerror(number), "/some/where")

    with monkeypatch.context() as patch:
        patch.setattr("hpo.search.controller.write_result", fails)
        with pytest.raises(HpoError, match=re.escape(told)):
            swept(tmp_path, home_with_store)
    _, shown = swept(tmp_path, home_with_store)
    assert_mlflow_has_all(home_with_store, shown)


@pytest.mark.parametrize("place", ["sweeps", "sweeps/sweep", "artifacts", "cache"])
def test_a_file_in_the_place_of_a_folder_is_moved_away_first(tmp_path, home_with_store, place):
    path = home_with_store / place
    path.parent.mkdir(exist_ok=True)
    path.write_text("a file\n")
    if place != "cache":  # the fake trainer needs none
        with pytest.raises(HpoError, match=r"move away the file or folder.*; then the same command continues"):
            swept(tmp_path, home_with_store)
    path.unlink()
    _, shown = swept(tmp_path, home_with_store)
    assert_mlflow_has_all(home_with_store, shown)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("(sqlite3.OperationalError) database is locked", "when no other process holds it, the same command continues"),
        ("database or disk is full", "make room; then"),
        ("attempt to write a readonly database", "give yourself permission to read and write it; then"),
        ("database disk image is malformed", "restore a backup of it, or move it away; then"),
        (
            "Run with id=abc not found",
            "someone has deleted it in MLflow; the same command continues and creates it again",
        ),
        ("The run abc must be in the 'active' state.", "someone has deleted it in MLflow; the same command continues"),
    ],
)
def test_a_database_that_fails_says_what_to_mend_first(words, told):
    assert way_on(RuntimeError(words)).startswith(told)


def test_a_run_that_is_deleted_under_a_running_sweep_is_there_after_the_next_command(
    tmp_path, home_with_store, monkeypatch
):
    finish = Tracker.finish_trial

    def deleted_just_before(self, number, result, paths):
        self._client.delete_run(self._runs[number])
        finish(self, number, result, paths)

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "finish_trial", deleted_just_before)
        with pytest.raises(HpoError, match="someone has deleted it in MLflow; the same command"):
            swept(tmp_path, home_with_store)
    _, shown = swept(tmp_path, home_with_store)
    assert_mlflow_has_all(home_with_store, shown)


def test_a_sweep_that_cannot_be_read_does_not_hide_the_others(tmp_path, home_with_store, capsys, monkeypatch):
    swept(tmp_path, home_with_store)
    swept(tmp_path, home_with_store, name="other")
    with sqlite3.connect(home_with_store / "studies.db") as studies:
        studies.execute("UPDATE study_user_attributes SET value_json = '[]' WHERE key = 'config' AND study_id = 1")
    listed = run_main(capsys, monkeypatch, home_with_store, "list")
    assert listed.code == 0
    assert re.search(r"other +complete", listed.out)
    assert "sweep 'sweep' cannot be read (ValueError: " in listed.out
    as_json = json.loads(run_main(capsys, monkeypatch, home_with_store, "list", "--json").out)
    assert [(s["sweep"], s["state"]) for s in as_json] == [("other", "complete"), ("sweep", "unreadable")]
    assert run_main(capsys, monkeypatch, home_with_store, "show", "sweep").code == 1
    with sqlite3.connect(home_with_store / "studies.db") as studies:
        studies.execute("UPDATE study_user_attributes SET value_json = '[]' WHERE key = 'config'")
    assert run_main(capsys, monkeypatch, home_with_store, "list").code == 1
