"""Several sweeps beside each other: what each found, what changed, and when values do not compare."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import json

from hpo.report.comparison import Comparison, Lead
from hpo.report.comparison_charts import comparison_charts
from hpo.report.comparison_parts import answers_part
from hpo.report.facts import Origin
from hpo.report.page import html_comparison
from hpo.report.text import markdown_comparison, trials_csv
from hpo.results.changes import Varied, varied
from hpo.results.leaderboard import gain
from hpo.results.outcome import Comparison as Difference
from hpo.results.released import Rivalry
from tests.hpo.builders import INSPECTION, trial_record
from tests.hpo.report.test_page import HOSTILE, Elements, contestant, drawn, facts_of, searched

LEAD = Lead("new", "old", Rivalry("f1_macro", 0.80, 0.83, 500, Difference(0.03, 0.01, 0.05, 0.004)))


def sweep(name, count=12, config=None, data=INSPECTION, torch="2.8"):
    facts = facts_of(*searched(count))
    summary = dataclasses.replace(facts.summary, sweep=name, data=data)
    origin = Origin(f"{name}#1", {"torch": torch, "seed": "0"})
    return dataclasses.replace(
        facts, summary=summary, config={**facts.config, "name": name, **(config or {})}, origin=origin
    )


OLD, NEW = sweep("old"), sweep("new", 30, {"training": {"max_steps": 200}, "method": "dora"}, torch="2.9")


def test_what_changed_is_every_key_that_is_not_the_same_everywhere():
    first, second = {"name": "a", "t": {"x": 1, "y": 2}}, {"name": "b", "t": {"x": 1, "y": 3}, "z": None}
    third = {"name": "c", "t": {"x": 5, "y": 2}, "w": [1]}
    found = {change.key: list(change.values) for change in varied([first, second, third])}
    assert found == {"t.y": [2, 3, 2], "t.x": [1, 1, 5], "w": [None, None, [1]]}
    sections = [{"f": {"top": 3}}, {"f": None}, {"f": {"top": 5}}]
    assert varied(sections) == [Varied("f", [{"top": 3}, None, {"top": 5}])]


def test_changes_are_those_of_files_data_and_environment():
    other = dataclasses.replace(INSPECTION, fingerprint="2" * 64)
    changed = {c.key: list(c.values) for c in Comparison([OLD, NEW, sweep("third", data=other)], []).changes}
    assert changed["method"] == [None, "dora", None]
    assert changed["torch"] == ["2.8", "2.9", "2.8"]
    assert changed["rows as cut and tokenized"] == ["1" * 12, "1" * 12, "2" * 12]
    assert "seed" not in changed
    assert "name" not in changed


def test_it_says_where_values_do_not_compare():
    other = dataclasses.replace(INSPECTION, fingerprint="2" * 64)
    assert Comparison([OLD, NEW], [LEAD]).cautions == []
    (caution,) = Comparison([OLD, sweep("new", data=other)], []).cautions
    assert "different validation rows" in caution
    assert Comparison([OLD, sweep("new", data=other)], [LEAD]).cautions == []
    running = dataclasses.replace(NEW, summary=dataclasses.replace(NEW.summary, state="running"))
    assert Comparison([OLD, running], []).cautions == ["not at their end: new"]


def test_every_format_has_each_answer_and_the_lead():
    comparison = Comparison([OLD, NEW], [LEAD])
    lead = "new against old: f1_macro +0.0300 (+0.0100 to +0.0500 on the same 500 rows, p 0.004), better beyond noise"
    page = html_comparison(comparison)
    for text in (html.unescape(page), markdown_comparison(comparison)):
        assert gain(OLD.summary) in text
        assert gain(NEW.summary) in text
        assert lead in text
    shown = json.loads(json.dumps(comparison.to_json()))
    assert [s["champion"]["value"] for s in shown["sweeps"]] == [
        OLD.summary.champion.value, NEW.summary.champion.value,
    ]  # fmt: skip
    assert shown["leads"][0]["found"]["lead"]["difference"] == 0.03
    rows = list(csv.DictReader(io.StringIO(trials_csv(*comparison.sweeps))))
    assert [(row["sweep"], int(row["trial"])) for row in rows] == [
        *(("old", n) for n in range(12)), *(("new", n) for n in range(30)),
    ]  # fmt: skip


def test_what_is_drawn_is_what_show_prints():
    found = comparison_charts(Comparison([OLD, NEW], []))["sweeps"][1]
    trials = NEW.summary.to_json()["trials"]
    best = [max(t["value"] for t in trials[:n] if t["state"] == "complete") for n, _ in found["best"]]
    assert [value for _, value in found["best"]] == best
    assert found["best"][-1][1] == found["value"] == NEW.summary.champion.value
    assert drawn(html_comparison(Comparison([OLD, NEW], [])))["sweeps"][1] == json.loads(json.dumps(found))


def test_with_finalists_only_their_own_comparison_is_over_the_baseline():
    """The champion's repeat minus the search's own training of the baseline would be of two seeds."""
    contestants = [contestant(0, 0.9, is_baseline=True), contestant(3, 0.8)]
    facts = facts_of(*searched(12), finalists={"contestants": contestants, "champion": 0, "identity": "x"})
    table = answers_part(Comparison([facts, OLD], []))
    over = [row[table.columns.index("over the baseline")] for row in table.rows]
    assert over[0] == "-"
    assert over[1].startswith("+")


def test_what_exceeds_a_constraint_is_not_the_best_so_far():
    records = [trial_record(0, value=0.5), trial_record(1, value=0.9, seconds=9.0), trial_record(2, value=0.6)]
    facts = facts_of(*records, constraints={"seconds": 5.0})
    assert comparison_charts(Comparison([facts, OLD], []))["sweeps"][0]["best"] == [[1, 0.5], [3, 0.6]]


def test_names_are_text():
    page = html_comparison(Comparison([sweep(HOSTILE), NEW], []))
    elements = Elements(page).found
    assert [tag for tag, _ in elements].count("script") == 2
    assert not [given for tag, given in elements if "onerror" in given]
