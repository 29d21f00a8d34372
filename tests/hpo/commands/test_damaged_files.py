"""Files that a crash, a full disk or a hand has damaged: each command names them and shows all the rest."""

from __future__ import annotations

import copy
import json
import shutil
from contextlib import contextmanager, suppress

import numpy as np
import optuna
import pytest
from click.testing import CliRunner

from hpo.certify.ledger import Claim, Ledger
from hpo.cli.main import cli
from hpo.commands.nights import read_history, tell_night
from hpo.commands.show import read_study
from hpo.commands.sweep import run_sweep
from hpo.errors import HpoError
from hpo.nights.record import NightFiles
from hpo.paths import Home
from hpo.trials.judged_rows import training_paths
from tests.hpo.builders import RATE, write_sweep
from tests.hpo.nights.records import kept, promoted
from tests.hpo.results.test_row_findings import results

TRUE = [0, 1] * 30
GARBAGE = b"\xff\x00\xfe no\n\x00"
DAMAGE = {
    "half of it": lambda content: content[: len(content) // 2],
    "garbage": lambda content: GARBAGE,
    "another type": lambda content: b'[1, null, {"a": "b"}]\n',
    "a number": lambda content: b"7\n",
    "nothing": lambda content: b"",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory, mlflow_database):
    """A home with the complete sweep `seen`, which has every file that a report reads, and three nights."""
    home = Home(tmp_path_factory.mktemp("home"))
    shutil.copy(mlflow_database, home.dir)
    _sweep(home, tmp_path_factory.mktemp("file"))
    files, ledger = NightFiles(home.nights("movies")), Ledger(home.ledger("movies"))
    for date in ("2026-11-26", "2026-11-27"):
        files.write(promoted(date))
        ledger.settle(Claim(f"movies@{date}", f"movies-{date}", "1", "2", 1000, "right rows"), lambda target: 9.0)
    files.write(kept("2026-11-28", regressions=["worse than before"]))
    return home


def _sweep(home, folder):
    """The fake trainer's, with rows as if it had read data."""
    changes = {"search_strategy": {"num_trials": 3}, "finalists": {"top": 1, "seeds": 2}, "pruner": {"type": "none"}}
    run_sweep(write_sweep(folder, name="seen", search_space=RATE, promote=False, report_to=[], **changes), home,
              worker="trainers.host.fake")  # fmt: skip
    tokens = home.tokens / "abc"
    tokens.mkdir(parents=True)
    lines = [json.dumps({"text": f"row {n}", "label": label}) for n, label in enumerate(TRUE)]
    (tokens / "validation.jsonl").write_text("\n".join(lines) + "\n")
    study = optuna.load_study(study_name="seen", storage=f"sqlite:///{home.studies_db}")
    study.set_user_attr("data", {**study.user_attrs["data"], "tokens_dir": str(tokens), "labels": ["a", "b"]})
    champion = home.sweep("seen").champion
    champion.mkdir()
    (champion / "worst_examples.jsonl").write_text('{"text": "dull", "true": "a", "predicted": "b"}\n' * 3)
    (champion / "confusion_matrix.svg").write_text("<svg></svg>\n")
    for paths, wrong in ((of_champion(home), 4), (home.sweep("seen").repeat(0, 0), 10)):
        np.save(paths.all_rows, results(TRUE, [1 - label if n < wrong else label for n, label in enumerate(TRUE)]))


def of_champion(home):
    study, summary = read_study(home, "seen")
    return training_paths(home, study, summary.champion.number, summary.champion.repeat)


def run(home, *words):
    """What a command prints. It may fail with a message for people, and with nothing else."""
    found = CliRunner().invoke(cli, ["--home", str(home.dir), *words])
    assert found.exception is None or isinstance(found.exception, HpoError), (words, found.exception)
    return found


@contextmanager
def damaged(file, how):
    """The file with its content damaged, or as a folder, which not even root can read."""
    kept_content = file.read_bytes()
    file.unlink()
    if how == "a folder":
        file.mkdir()
    elif how != "gone":
        file.write_bytes(DAMAGE[how](kept_content))
    try:
        yield
    finally:
        if file.is_dir():
            file.rmdir()
        file.write_bytes(kept_content)


PLACES = {
    "worst rows": lambda home: home.sweep("seen").champion / "worst_examples.jsonl",
    "confusion": lambda home: home.sweep("seen").champion / "confusion_matrix.svg",
    "timeline": lambda home: home.sweep("seen").timeline,
    "validation rows": lambda home: home.tokens / "abc" / "validation.jsonl",
    "the champion's rows": lambda home: of_champion(home).all_rows,
    "the baseline's rows": lambda home: home.sweep("seen").repeat(0, 0).all_rows,
    "result": lambda home: of_champion(home).result,
    "spec": lambda home: of_champion(home).spec,
    "environment": lambda home: of_champion(home).environment,
}
NOT_NOTICED = {("timeline", "half of it"), ("timeline", "nothing"), ("worst rows", "nothing")}
"""A timeline's last line may be cut by a kill, and no rows are a file of no lines."""


@pytest.mark.parametrize("place", PLACES)
def test_a_report_names_the_file_and_shows_the_rest(home, place):
    file = PLACES[place](home)
    for how in [*DAMAGE, "a folder", "gone"]:
        with damaged(file, how):
            for form in ("html", "json"):
                found = run(home, "report", "seen", "--format", form, "--output", "-")
                assert found.exit_code == 0, (how, found.exception)
                assert "learning_rate" in found.output
            unread = json.loads(found.output)["unread"]
            assert run(home, "show", "seen").exit_code == 0
            assert run(home, "query", "select count(*) from trials", "--format", "csv").output.endswith("\n3\n")
        name = str(file.parents[1] if file.suffix == ".npy" else file)  # rows are named by their training
        if how != "gone" and (place, how) not in NOT_NOTICED:
            assert any(name in line for line in unread), (how, unread)


def test_rows_that_are_of_another_task_are_named_too(home):
    """NumPy reads them, and numbers come out that mean nothing."""
    file = of_champion(home).all_rows
    for rows in (np.zeros(60), np.zeros((60, 1)), np.full((60, 5), 9.0), np.full((60, 5), np.nan), np.array(["a"])):
        with damaged(file, "gone"):
            np.save(file, rows)
            (line,) = json.loads(run(home, "report", "seen", "--format", "json", "--output", "-").output)["unread"]
        assert str(of_champion(home).dir) in line


def test_a_study_in_which_a_hand_wrote_is_named(home):
    """Every fact of the study with every type that it may not have."""
    keys = optuna.load_study(study_name="seen", storage=home.studies_db.url).user_attrs
    whole = home.studies_db.file.read_bytes()
    try:
        for key in keys:
            for value in (7, [1, {"a": 2}], {"a": {"b": 1}}):
                study = optuna.load_study(study_name="seen", storage=home.studies_db.url)
                study.set_user_attr(key, value)
                found = run(home, "report", "seen", "--output", "-")
                assert found.exception is None or "'seen'" in str(found.exception), (key, value)
                study.set_user_attr(key, keys[key])
    finally:
        home.studies_db.file.write_bytes(whole)


def test_a_query_says_which_sweep_it_leaves_out(home, monkeypatch):
    from hpo.commands import query

    def read(home, name, **kept):
        if name == "other":
            raise HpoError("sweep 'other' cannot be read")
        return read_study(home, name, **kept)

    monkeypatch.setattr(query, "study_names", lambda database: ["other", "seen"])
    monkeypatch.setattr(query, "read_study", read)
    found = run(home, "query", "select sweep from sweeps", "--format", "csv")
    assert found.stdout == "sweep\nseen\n"
    assert found.stderr == "left out: sweep 'other' cannot be read\n"


@pytest.mark.parametrize("how", [*DAMAGE, "a folder"])
def test_nights_name_a_damaged_record_or_ledger_and_show_the_others(home, how):
    record = NightFiles(home.nights("movies")).dir / "2026-11-27.json"
    with damaged(record, how):
        found = run(home, "nights", "movies")
        assert [line.split()[0] for line in found.output.splitlines() if line.startswith("2026-")] == [
            "2026-11-26", "2026-11-28",
        ]  # fmt: skip
        assert f"not shown: {record} cannot be read" in found.output
        assert str(record) in str(run(home, "nights", "movies", "2026-11-27").exception)
        assert run(home, "nights", "movies", "2026-11-26").exit_code == 0
    if how in ("half of it", "nothing"):  # of a ledger only the last line may be cut: no later one follows
        return
    with damaged(home.ledger("movies"), how):
        found = json.loads(run(home, "nights", "movies", "--json").output)
        assert len(found["nights"]) == 3
        assert found["ledgers"] == []
        assert str(home.ledger("movies")) in found["unread"][0]


def test_nights_of_which_none_can_be_read_are_an_error(home):
    files = NightFiles(home.nights("lost"))
    files.dir.mkdir()
    (files.dir / "2026-11-26.json").write_bytes(GARBAGE)
    assert "2026-11-26.json cannot be read" in str(run(home, "nights", "lost").exception)


def test_no_value_of_a_record_ends_in_a_traceback(home):
    """Each value of two nights replaced by every type that it may not have."""
    for date in ("2026-11-27", "2026-11-28"):
        record = NightFiles(home.nights("movies")).dir / f"{date}.json"
        whole = json.loads(record.read_text())
        with damaged(record, "gone"):
            for changed in _each_value_changed(whole):
                record.write_text(json.dumps(changed))
                assert len(read_history(home, "movies").stories) >= 2
                with suppress(HpoError):
                    tell_night(home, "movies", date)


def _each_value_changed(content):
    for path in _paths(content):
        for value in (None, 7, "x", {"a": 1}):
            changed = copy.deepcopy(content)
            at = changed
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = value
            yield changed


def _paths(content, path=()):
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from _paths(value, (*path, key))
