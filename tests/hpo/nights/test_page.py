"""The night report: what it says, in which order, and that whatever people wrote is text in it."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from hpo.nights.alerts import events_of
from hpo.nights.estimates import Estimate
from hpo.nights.intervals_svg import Mark, rows_svg
from hpo.nights.page import night_page, night_text
from hpo.nights.record import Step
from hpo.nights.story import evidence_in_words, story_of
from tests.hpo.nights.records import kept, measured, night, promoted

HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(2)>"


def test_the_text_of_a_promotion():
    assert night_text(promoted()) == (
        "movies 2026-11-28: promoted; f1_macro 0.8800, champion before 0.8600\n"
        "\n"
        "What changed since the night before:\n"
        "- data movies@2026-11-28: 1,200 train (+40, -2), 150 validation (+5), 150 test rows; "
        "1 with another label or answer\n"
        "- rows are longer than before: 21 words, not 14\n"
        "\n"
        "The answer:\n"
        "- promoted\n"
        "- evidence 1 : 1,340, needed 1 : 1,250 (a model that is no better gets as much in at most 1 of 1,340 nights); "
        "claim 3 of this name\n"
        "- tonight's model against the champion: +0.0200 (+0.0100 to +0.0300)\n"
        "- certified: accuracy\n"
        "- version 3 of 'movies' is the champion\n"
        "\n"
        "Old, new, baseline (f1_macro, the same rows, 95 %):\n"
        "- champion before: 0.8600 (0.8500 to 0.8700)\n"
        "- tonight's model: 0.8800 (0.8700 to 0.8900)\n"
        "- baseline: 0.8000 (0.7900 to 0.8100)\n"
        "\n"
        "Cost:\n"
        "- 30 min 00 s in all, 20 trials, 20 min 00 s of training, cost 1.50\n"
        "\n"
        "Steps:\n"
        "- 01:00 freeze, 1 min 00 s: freeze is done\n"
        "- 01:01 look, 1 min 00 s: look is done\n"
        "- 01:02 decide, 1 min 00 s: decide is done\n"
        "- 01:03 sweep, 1 min 00 s: 20 trials, the best has f1_macro 0.8900\n"
        "- 01:04 certify, 1 min 00 s: certified: accuracy\n"
        "- 01:05 promote, 1 min 00 s: version 3 of 'movies' is the champion\n"
        "\n"
        "More:\n"
        "- the sweep's report: hpo report movies-2026-11-28\n"
        "- the ledger and all nights: hpo nights movies\n"
        "- to take it back: hpo rollback movies"
    )


@pytest.mark.parametrize(
    ("record", "headline", "alerts", "events"),
    [
        (promoted(), "promoted; f1_macro 0.8800, champion before 0.8600", [], ["end", "promotion"]),
        (kept(regressions=["worse than the baseline"]), "kept the champion; f1_macro 0.8000, champion before 0.8700",
         ["regression: worse than the baseline"], ["end", "regression"]),
        (night(state="skipped", reason="the rows are those of 2026-11-27"), "nothing had changed", [], ["end"]),
        (night(state="failed", reason="sweep: the disk is full"), "FAILED",
         ["the night is failed: sweep: the disk is full"], ["end", "failure"]),
        (night(state="missed", reason="no call came"), "MISSED", ["the night is missed: no call came"],
         ["end", "failure"]),
        (night(state="running"), "not over yet", [], ["end"]),
        (promoted(old=None), "promoted; f1_macro 0.8800", [], ["end", "promotion"]),
        (kept(decision="ask", seat="waits", old=None), "waits for you; f1_macro 0.8000", [], ["end"]),
        (kept(decision="promote", seat="waits", old=None), "waits for you; f1_macro 0.8000", [], ["end"]),
        (dataclasses.replace(promoted(), state="failed", reason="keep: the disk is full"),
         "FAILED; f1_macro 0.8800, champion before 0.8600", ["the night is failed: keep: the disk is full"],
         ["end", "failure", "promotion"]),
    ],
)  # fmt: skip
def test_how_a_night_ended_and_what_somebody_should_look_at(record, headline, alerts, events):
    story = story_of(record)
    assert story.headline == f"movies 2026-11-28: {headline}".replace("11-28", record.date[5:])
    assert story.alerts == alerts
    assert events_of(record) == events


def test_a_version_that_waits_is_approved_by_its_number_and_one_that_is_no_champion_is_not_called_one():
    waits = story_of(kept(decision="promote", seat="waits", old=None))
    assert waits.links["to promote it"] == "hpo approve movies/4"
    assert waits.champion is None
    assert "to promote it" not in story_of(kept(decision="ask")).links


def test_only_a_champion_that_had_one_before_it_can_be_taken_back():
    assert story_of(promoted()).links["to take it back"] == "hpo rollback movies"
    assert "to take it back" not in story_of(promoted(old=None)).links


def test_weak_evidence_and_evidence_beyond_all_measure():
    assert evidence_in_words({"e_value": 0.4, "threshold": 1000.0}) == "evidence 1 : 0.4, needed 1 : 1,000"
    assert evidence_in_words({"e_value": 6.7e164, "threshold": 1250.0}) == (
        "evidence more than 1 : 1,000,000, needed 1 : 1,250 (a model that is no better gets as much in less than 1 of "
        "1,000,000 nights)"
    )
    assert evidence_in_words({"decision": "nothing"}) is None


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.names, self.addresses = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href") or name.startswith("on")]


def test_readings_of_the_sealed_test_are_counted():
    test = {"metric": "f1_macro", "new": measured(0.87), "old": measured(0.85), "number": 2}
    assert (
        "sealed test: f1_macro new 0.8700 (0.8600 to 0.8800), old 0.8500 (0.8400 to 0.8600); nights of this name have "
        "read it 2 times" in story_of(promoted(test=test, test_readings=2)).answer
    )
    assert (
        "sealed test not read tonight; nights of this name have read it once" in story_of(kept(test_readings=1)).answer
    )


def test_what_the_last_step_repeats_is_said_once():
    answer = story_of(kept()).answer
    assert answer[-1] == "version 4 of 'movies' stays the challenger: not certified"
    assert "not certified" not in answer


def test_the_page_says_the_same_in_this_order_and_needs_no_network():
    page = night_page(promoted("2026-11-29"), [promoted()])
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert titles == [
        "What changed since the night before", "The answer", "Old, new, baseline", "The champion over the nights",
        "Cost and steps", "More",
    ]  # fmt: skip
    assert page.count("<svg") == 2
    assert "evidence 1 : 1,340, needed 1 : 1,250" in page
    tags = Tags(page)
    assert "script" not in tags.names
    assert tags.addresses == []
    assert "default-src 'none'" in page


def test_whatever_people_wrote_is_text():
    record = promoted(metric=HOSTILE, why=HOSTILE)
    record = dataclasses.replace(record, steps=[*record.steps, Step("keep", "", "x", HOSTILE)])
    tags = Tags(night_page(record, [promoted(metric=HOSTILE)]))
    assert not {"script", "img"} & set(tags.names)
    assert "\x1b" not in night_text(night(state="failed", reason="\x1b[2J"))


def test_problems_that_failed_a_night_have_a_line_each():
    page = night_page(
        night(state="failed", reason="the file is wrong: 2 problems\n  a.yaml:1: one\n  a.yaml:2: two"), []
    )
    assert ".alert, .answer { white-space: pre-line; }" in page
    assert page.count("problems\n  a.yaml:1: one\n  a.yaml:2: two</p>") == 2


def test_a_night_of_which_little_is_known_has_a_page():
    page = night_page(night(state="missed", reason="no call came"), [])
    assert "The data was not frozen" in page
    assert "No step was finished" in page


def test_equal_values_are_drawn():
    assert rows_svg([Mark("a", Estimate(0.5, 0.5, 0.5))], "one").count("<circle") == 1
    assert "nan" not in rows_svg([Mark("a", Estimate(0.0, 0.0, 0.0))], "one")
