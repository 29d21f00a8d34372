"""`hpo report`: where the page goes, and what the other formats hold."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from hpo.cli.main import cli
from hpo.commands import live_page
from hpo.commands.show import read_sweep
from hpo.commands.sweep import run_sweep
from hpo.errors import HpoError, Interrupted, UsageError
from hpo.paths import Home
from hpo.report import page
from hpo.report.page import html_page
from tests.conftest import copied_home
from tests.hpo.builders import RATE, Said, write_sweep


@pytest.fixture(scope="module")
def seen(tmp_path_factory, mlflow_database):
    """A home with a sweep of the fake trainer, `seen`, run once."""
    home = Home(tmp_path_factory.mktemp("seen"))
    shutil.copy(mlflow_database, home.dir)
    file = write_sweep(
        tmp_path_factory.mktemp("file"),
        name="seen",
        search_space=RATE,
        promote=False,
        pruner={"type": "none"},
        search_strategy={"type": "random", "num_trials": 12},
    )
    run_sweep(file, home, worker="trainers.host.fake")
    return home


@pytest.fixture
def home(seen, tmp_path):
    """A copy of it."""
    return Home(copied_home(seen.dir, tmp_path))


def run(home, *arguments):
    return CliRunner().invoke(cli, ["--home", str(home.dir), "report", *arguments])


def test_the_page_lies_in_the_sweep_s_folder_or_where_one_says(home, tmp_path):
    written = run(home, "seen")
    path = home.sweep("seen").dir / "report.html"
    assert written.output == f"{path}\n"
    assert path.read_text().startswith("<!doctype html>")
    assert not list(path.parent.glob("*.partial"))
    other = tmp_path / "page.html"
    assert run(home, "seen", "--output", str(other)).output == f"{other}\n"
    assert other.read_text() == path.read_text()


def test_the_other_formats(home):
    shown = json.loads(run(home, "seen", "--format", "json", "--output", "-").output)
    expected = json.loads(json.dumps(read_sweep(home, "seen").to_json()))
    assert {key: shown[key] for key in expected} == expected
    assert shown["config"]["name"] == "seen"
    assert [i["dimension"] for i in shown["importances"]] == ["learning_rate"]
    assert run(home, "seen", "--format", "md", "--output", "-").output.startswith("# seen\n")
    lines = run(home, "seen", "--format", "csv", "--output", "-").output.splitlines()
    assert lines[0].startswith("trial,state,value,seconds,cause,learning_rate,")
    assert len(lines) == 13
    assert Path(run(home, "seen", "--format", "csv").output.strip()).name == "report.csv"


def test_several_sweeps_are_compared_in_the_home_s_own_page(home, tmp_path):
    other = write_sweep(tmp_path, name="again", search_space=RATE, promote=False, training={"max_steps": 20})
    run_sweep(other, home, worker="trainers.host.fake")
    path = home.dir / "comparison.html"
    assert run(home, "seen", "again").output == f"{path}\n"
    assert "<h1>seen against again</h1>" in path.read_text()
    shown = json.loads(run(home, "seen", "again", "--format", "json", "--output", "-").output)
    assert [sweep["sweep"] for sweep in shown["sweeps"]] == ["seen", "again"]
    assert {"key": "training.max_steps", "values": [None, 20]} in shown["changes"]
    assert run(home, "seen", "seen", "--output", "-").output.startswith("<!doctype html>")
    assert isinstance(run(home, "seen", "none").exception, UsageError)


def test_workers_and_what_trains_the_champion_again_are_in_the_report(home):
    shown = json.loads(run(home, "seen", "--format", "json", "--output", "-").output)
    assert sorted(stint["trial"] for stint in shown["timeline"]) == list(range(12))
    assert all(stint["phase"] <= stint["began"] <= stint["ended"] for stint in shown["timeline"])
    assert {stint["how"] for stint in shown["timeline"]} == {"complete"}
    champion = shown["champion"]["number"]
    assert shown["origin"]["run"] == f"seen#{champion}"
    assert shown["origin"]["facts"]["seed"] == "0"
    shown_page = run(home, "seen", "--output", "-").output
    assert f"hpo reproduce &#39;seen#{champion}&#39;" in shown_page
    home.sweep("seen").timeline.unlink()
    assert 'id="timeline"' in shown_page
    assert 'id="timeline"' not in run(home, "seen", "--output", "-").output


def test_the_page_beside_the_run_is_written_while_the_sweep_runs(home, tmp_path, monkeypatch):
    monkeypatch.setattr(live_page, "EVERY_S", 0.0)
    monkeypatch.setattr(live_page, "SHARE", 1e9)
    written = []
    monkeypatch.setattr(page, "html_page", lambda facts: written.append(facts) or html_page(facts))
    file = write_sweep(tmp_path, name="live", search_space=RATE, promote=False, search_strategy={"num_trials": 3})
    said = Said()
    run_sweep(file, home, worker="trainers.host.fake", view=said)
    *during, last = written
    assert {facts.summary.state for facts in during} == {"running"}
    assert during[-1].as_of
    assert last.summary.state == "complete"
    assert not [line for line in said.lines if "refreshed" in line]


def test_a_page_that_cannot_be_made_ends_no_sweep(home, tmp_path, monkeypatch):
    def broken(facts):
        raise ValueError("no page")

    monkeypatch.setattr(page, "html_page", broken)
    file = write_sweep(tmp_path, name="live", search_space=RATE, promote=False, search_strategy={"num_trials": 3})
    said = Said()
    run_sweep(file, home, worker="trainers.host.fake", view=said)
    assert read_sweep(home, "live").state == "complete"
    assert "note: the sweep's report.html is not written: no page" in said.lines


def test_the_page_beside_the_run_says_how_the_sweep_was_interrupted(home, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(page, "html_page", lambda facts: written.append(facts) or html_page(facts))

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(live_page.LivePage, "looked", interrupted)
    file = write_sweep(tmp_path, name="live", search_space=RATE, promote=False, search_strategy={"num_trials": 3})
    with pytest.raises(Interrupted):
        run_sweep(file, home, worker="trainers.host.fake")
    assert [facts.summary.state for facts in written] == ["interrupted"]


def test_a_timeline_that_another_program_wrote_in_is_none(home):
    home.sweep("seen").timeline.write_text('{"of": "another"}')
    shown_page = run(home, "seen", "--output", "-").output
    assert 'id="timeline"' not in shown_page
    assert "is not an attempt at a trial" in shown_page
    assert read_sweep(home, "seen").timeline == []
    found = CliRunner().invoke(cli, ["--home", str(home.dir), "query", "select sweep from sweeps", "--format", "csv"])
    assert found.output == "sweep\nseen\n"


def test_a_query_reads_every_sweep(home):
    asked = ["--home", str(home.dir), "query"]
    found = CliRunner().invoke(cli, [*asked, "select sweep, trials from sweeps", "--format", "csv"])
    assert found.output == "sweep,trials\nseen,12\n"
    columns = json.loads(CliRunner().invoke(cli, [*asked, "--json"]).output)
    assert {"table": "trials", "column": "learning_rate"} in columns
    assert "1 row" in CliRunner().invoke(cli, [*asked, "select count(*) as n from evaluations"]).output


def test_a_link_is_followed_and_a_pipe_is_written_to(home, tmp_path):
    """Root can replace /dev/null and /dev/stdout by a file, and then no program of the machine has them."""
    real, link, pipe = (tmp_path / name for name in ("real.csv", "link.csv", "pipe"))
    link.symlink_to(real)
    assert run(home, "seen", "--format", "csv", "--output", str(link)).output == f"{link}\n"
    assert link.is_symlink()
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert run(home, "seen", "--format", "csv", "--output", str(pipe)).output == f"{pipe}\n"
    assert os.read(reader, 1_000_000).decode() == real.read_text()
    os.close(reader)
    assert pipe.is_fifo()
    assert sorted(file.name for file in tmp_path.glob("*.partial")) == []


def test_what_cannot_be_reported_is_said(home, tmp_path):
    missing = run(home, "none")
    assert isinstance(missing.exception, UsageError)
    assert str(missing.exception) == "no sweep 'none'; there are: seen"
    refused = run(home, "seen", "--output", str(tmp_path / "no" / "folder.html"))
    assert isinstance(refused.exception, HpoError)
    assert "folder.html cannot be written: No such file or directory; choose another file" in str(refused.exception)


def test_the_parent_run_of_mlflow_has_the_page(home):
    from hpo.tracking.mlflow_store import client

    store = client(home)
    (parent,) = store.search_runs(["1"], "tags.`hpo.sweep` = 'seen' and attributes.run_name = 'seen'")
    stored = Path(store.download_artifacts(parent.info.run_id, "report.html")).read_text()
    assert stored.startswith("<!doctype html>")
    assert "seen: f1_macro" in stored
