"""`hpo nights`: history, trend and ledger, from records alone."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from hpo.certify.ledger import Claim, Ledger, SealedReading
from hpo.cli.main import cli
from hpo.errors import UsageError
from hpo.nights.record import NightFiles
from hpo.paths import Home
from tests.hpo.nights.records import kept, night, promoted


@pytest.fixture
def home(tmp_path):
    """A home with four nights, and the ledger of what they released."""
    home = Home(tmp_path)
    files = NightFiles(home.nights("movies"))
    for record in (
        promoted("2026-11-26", new=0.85, old=None),
        promoted("2026-11-27", new=0.88),
        night("2026-11-28", "skipped", "the rows are those of 2026-11-27"),
        kept("2026-11-29", regressions=["worse than before"]),
    ):
        files.write(record)
    files.page(record.night).write_text("page")
    ledger = Ledger(home.ledger("movies"))
    for date, e_value in (("2026-11-27", 1340.0), ("2026-11-29", 0.4)):
        claim = Claim(f"movies@{date}", f"movies-{date}", "1", "2", 1000, "right rows")
        ledger.settle(claim, lambda target, e_value=e_value: e_value)
    ledger.read(SealedReading("movies@2026-11-27", "promotion", 500, "f1_macro", None, None))
    with ledger.path.open("a") as file:
        file.write('{"cut sh')
    return home


def run(home, *words):
    return CliRunner().invoke(cli, ["--home", str(home.dir), "nights", *words])


def test_history_trend_and_ledger(home):
    text = run(home, "movies").output
    rows = [line.split() for line in text.splitlines() if line.strip().startswith("2026-")]
    assert [row[0] for row in rows] == ["2026-11-26", "2026-11-27", "2026-11-28", "2026-11-29"]
    assert "nothing had changed" in text
    assert "kept the champion !" in text
    assert "f1_macro of the champion: ▁█▆  0.8700 (0.8600 to 0.8800); +0.0200 since the first of 3 nights" in text
    assert (
        "ledger of movies: 2 claims, 1 certified; the last one needed evidence 1 : 356; the sealed test was read once"
        in text
    )
    assert "ALERT of 2026-11-29: regression: worse than before" in text
    assert f"the last report: {home.nights('movies')}/2026-11-29.html" in text


def test_as_json_and_one_night(home):
    shown = json.loads(run(home, "movies", "--json").output)
    assert [one["is_promoted"] for one in shown["nights"]] == [True, True, False, False]
    assert shown["nights"][1]["measured"]["new"] == {"value": 0.88, "low": 0.87, "high": 0.89}
    assert shown["ledgers"][0]["claims"] == 2
    assert run(home, "movies", "2026-11-27").output.startswith("movies 2026-11-27: promoted; f1_macro 0.8800")
    one = json.loads(run(home, "movies", "2026-11-29", "--json").output)
    assert one["alerts"] == ["regression: worse than before"]


def test_what_does_not_exist_is_said(home, tmp_path):
    for words, message in (
        (["films"], "no nights of 'films'; there are: movies"),
        (["movies", "2026-12-01"], "no night 2026-12-01 of 'movies'; there are: 2026-11-29, 2026-11-28"),
        (["movies", "yesterday"], "'yesterday' is not a date; expected YYYY-MM-DD"),
        (["../x"], "is not a sweep name"),
    ):
        found = run(home, *words).exception
        assert isinstance(found, UsageError)
        assert message in str(found)
    assert "no night has run yet" in str(run(Home(tmp_path / "new"), "movies").exception)
