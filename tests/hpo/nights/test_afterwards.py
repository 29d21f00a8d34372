"""What became of a release that waited for a person: `hpo nights`, the night's page and `hpo list` say it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from hpo.cli.main import cli
from hpo.nights.record import NightFiles
from hpo.paths import Home
from hpo.release.aliases import seats
from hpo.tracking.mlflow_store import client
from tests.hpo.builders import Sweep
from tests.hpo.nights.records import kept
from tests.hpo.release.rivals import registered


@pytest.fixture
def waiting(tmp_path, home_with_store, database):
    """A home in which version 4 of `movies`, the release of a night, waits for a person; version 1 is champion."""
    home = Home(home_with_store)
    sweep = Sweep(tmp_path, database, name="movies-2026-11-29", search_space={}, promote={"name": "movies"})
    for _ in range(4):
        release = registered(home, sweep.config.name, 0.9, name="movies")
    with seats(home, "movies") as held:
        held.crown("1")
        held.challenge("4", waits=True)
    study = sweep.open()
    study.update_state(challenger=replace(release, decision="night"))
    study.close()
    files, record = NightFiles(home.nights("movies")), kept(seat="waits", decision="ask")
    files.write(record)
    files.page(record.night).write_text("waits for you")
    return home


def run(home, *words):
    return CliRunner().invoke(cli, ["--home", str(home.dir), *words])


def row_of(home):
    (row,) = (
        line for line in run(home, "nights", "movies").output.splitlines() if line.strip().startswith("2026-11-29")
    )
    return " ".join(row.split())


def test_a_release_that_waited_is_not_said_to_wait_once_it_is_approved(waiting):
    assert row_of(waiting).startswith("2026-11-29 waits for you f1_macro")
    assert "to promote it: hpo approve movies/4" in run(waiting, "nights", "movies", "2026-11-29").output
    assert "movies v4" not in run(waiting, "list").output
    assert run(waiting, "approve", "movies").output == "version 4 of 'movies' is the champion; version 1 is previous\n"
    assert row_of(waiting).startswith("2026-11-29 approved f1_macro")
    text = run(waiting, "nights", "movies", "2026-11-29").output
    assert text.startswith("movies 2026-11-29: approved; f1_macro 0.8000")
    assert "version 4 of 'movies' waited for you and became champion later" in text
    assert "hpo approve" not in text
    page = NightFiles(waiting.nights("movies")).page(kept().night).read_text()
    assert "version 4 of &#39;movies&#39; waited for you and became champion later" in page
    assert "waits for you" not in page
    assert "movies v4" in run(waiting, "list").output
    assert "released: models:/movies@champion version 4 (fp32)" in run(waiting, "show", "movies-2026-11-29").output


def moved_in_mlflow(home):
    client(home).set_registered_model_alias("movies", "champion", "4")


def waits_elsewhere(home):
    with seats(home, "movies") as held:
        held.challenge("3", waits=True)


def deleted(home):
    client(home).delete_model_version("movies", "4")


@pytest.mark.parametrize(("happens", "word", "may_be_approved"), [
    (moved_in_mlflow, "approved", False), (waits_elsewhere, "replaced", True), (deleted, "deleted", False),
    (lambda home: home.mlflow_db.unlink(), "waits for you", True),
])  # fmt: skip
def test_what_became_of_a_release_that_waited(waiting, happens, word, may_be_approved):
    happens(waiting)
    assert row_of(waiting).startswith(f"2026-11-29 {word} f1_macro")
    links = json.loads(run(waiting, "nights", "movies", "2026-11-29", "--json").output)["links"]
    assert ("to promote it" in links) == may_be_approved


def test_a_page_that_cannot_be_brought_up_to_date_keeps_nobody_from_approving(waiting):
    record = NightFiles(waiting.nights("movies")).record(kept().night)
    record.write_text("{")
    said = run(waiting, "approve", "movies/4").output
    assert said.startswith("version 4 of 'movies' is the champion; version 1 is previous; its sweep or its night does")
    assert str(record) in said
