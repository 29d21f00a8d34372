"""The report: its figures are those of `hpo show --json`, what people wrote is text, and it needs no network."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import json
import random
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from hpo.config.objective import Objective
from hpo.config.space import from_resolved
from hpo.report.champion_files import read_champion_files
from hpo.report.charts import charts
from hpo.report.comparison import Comparison
from hpo.report.facts import Origin, ReportFacts
from hpo.report.page import MOST_ROWS, html_comparison, html_page
from hpo.report.parts import labels_part
from hpo.report.text import markdown, trials_csv
from hpo.results.importance import importances
from hpo.results.leaderboard import gain, leaderboard, notes
from hpo.results.row_findings import JudgedRows, row_findings
from hpo.results.summary import summarize
from hpo.results.timeline import Stint
from tests.hpo.builders import INSPECTION, evaluation, trial_record, trial_result
from tests.hpo.results.test_summary import SPACE, study_view
from trainers.protocol.events import PreparedData

HOSTILE = "</script><script>alert(1)</script>|<img src=x onerror=alert(2)>"


def searched(count):
    rng = random.Random(0)
    found = []
    for number in range(count):
        state = rng.choice(["complete", "complete", "pruned"])
        value = rng.uniform(0.5, 0.9)
        curve = [(step / 5, value - 0.1 / step) for step in range(1, 6 if state == "complete" else 3)]
        params = {"learning_rate": 10 ** rng.uniform(-4, -2), "lora_r": rng.choice([4, 8]), "batch_size": 8}
        found.append(trial_record(number, state, value, params=params, curve=curve))
    return found


def facts_of(*records, **changes):
    view = study_view(*records, space=SPACE, **changes)
    summary, space = summarize(view, "complete"), from_resolved(SPACE)
    found = importances(view.records, space, summary.objective)
    return ReportFacts(summary, view.config, space, found, [], None)


def with_texts(text):
    """A sweep whose label, cause, row and setting are all this text."""
    data = PreparedData(
        rows={"train": 1, "validation": 1, "test": 1}, labels=[text], tokens_dir="", model_dir="", fingerprint="",
        model_fingerprint="", duplicates=0, truncated=0, train_tokens=1, gpus=0, notes=[text],
    )  # fmt: skip
    facts = facts_of(
        trial_record(0, params={"target_modules": text}),
        trial_record(1, "failed", None, cause="crash", message=text, params={"target_modules": text}),
    )
    summary = dataclasses.replace(facts.summary, data=data, sweep=text, refusal=text)
    return ReportFacts(summary, {"name": text}, facts.space, [], [{"text": text, "true": text}], "<svg/>")


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the texts of its scripts."""

    def __init__(self, page):
        super().__init__()
        self.found, self.scripts, self._inside = [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data):
        if self._inside == "script" and data.strip():
            self.scripts.append(data)
            self._inside = None


def drawn(page):
    """As a browser reads it: NaN is no JSON, and nothing at all would be drawn."""

    def refuse(name):
        raise AssertionError(name)

    return json.loads(Elements(page).scripts[0], parse_constant=refuse)


def test_the_page_says_and_draws_what_show_prints():
    facts = facts_of(*searched(40))
    page, shown = html_page(facts), facts.summary.to_json()
    text = html.unescape(page)
    assert gain(facts.summary) in text
    assert all(line in text for line in notes(facts.summary))
    for row in leaderboard(facts.summary)[1]:
        assert "".join(f"<td>{cell}</td>" for cell in row) in page
    found = drawn(page)
    assert (found["champion"], found["baseline"]) == (shown["champion"]["number"], 0)
    names = [dimension["name"] for dimension in found["dimensions"]]
    for ours, theirs in zip(found["trials"], shown["trials"], strict=True):
        assert (ours["n"], ours["s"], ours["v"]) == (theirs["number"], theirs["state"], theirs["value"])
        assert dict(zip(names, ours["p"], strict=True)) == theirs["params"]
        assert ours["c"] == theirs["curve"]
    assert [i["name"] for i in found["importances"]] == [i.dimension for i in facts.importances]
    assert found["dimensions"][0] == {"name": "learning_rate", "log": True, "values": None}
    assert found["dimensions"][2]["values"] == [8, 16]


def left_out(*needs, **changes):
    points = [{"params": {"batch_size": 8 * (n + 1)}, "needs_mb": mb, "of_mb": 400.0} for n, mb in enumerate(needs)]
    return {"share": 0.5, "is_counted": True, "points": points, **changes}


def test_points_that_were_not_tried_are_listed_as_show_has_them():
    facts = facts_of(trial_record(0), left_out=left_out(900.0, None, 800.0))
    page, shown = html.unescape(html_page(facts)), facts.summary.to_json()["left_out"]["points"]
    rows = [[str(point["params"]["batch_size"]), f"needs about {point['needs_mb'] / 1024:.1f} GB of 0.4 GB"]
            for point in (shown[2], shown[0])]  # fmt: skip
    rows.append([str(shown[1]["params"]["batch_size"]), "runs out of 0.4 GB"])
    written = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    assert f"<tbody>\n{written}</tbody>" in page
    assert "<details><summary>not tried: 3 points, which need about 0.8 GB to 0.9 GB of 0.4 GB</summary>" in page
    assert "| 24 | needs about 0.8 GB of 0.4 GB |" in markdown(facts)
    some = html_page(facts_of(trial_record(0), left_out=left_out(800.0, 900.0, is_counted=False)))
    assert "not tried: about 50% of the space, which needs about 0.8 GB to 0.9 GB of 0.4 GB; for example" in some
    assert "not tried" not in html_page(facts_of(trial_record(0)))


def contestant(trial, mean, *, is_baseline=False):
    repeat = {"seed": 1, "value": mean, "metrics": {"f1_macro": mean}, "run_id": "r", "cause": None, "seconds": 1.0}
    interval = {"mean": mean, "low": mean - 0.02, "high": mean + 0.02}
    return {"trial": trial, "params": {}, "repeats": [repeat], "is_baseline": is_baseline, "interval": interval}


def variant(name, value, ms):
    found = {"variant": name, "metrics": {"f1_macro": value}, "max_logit_diff": 0.0, "size_mb": 9.0,
             "latency_p50_ms": ms, "latency_p95_ms": ms}  # fmt: skip
    return {"variant": name, "measurement": found, "drop": 0.0, "passed": True, "reason": "because"}


def test_finalists_variants_and_workers_are_drawn_as_show_prints_them():
    facts = facts_of(
        *searched(20), finalists={"contestants": [contestant(3, 0.8), contestant(0, 0.7, is_baseline=True)],
                                  "champion": 3, "identity": "x"},
        torch={"metrics": {"f1_macro": 0.8}, "latency_p50_ms": 12.5}, variants=[variant("int8", 0.79, 3.25)],
    )  # fmt: skip
    timeline = [Stint(n, None, n % 2, 2, 5.0, 5.0 + n, 7.5 + n, "complete") for n in range(4)]
    timeline.append(Stint(3, 0, 0, 2, 50.0, 50.0, 59.0, "complete"))
    facts = dataclasses.replace(facts, summary=dataclasses.replace(facts.summary, timeline=timeline))
    found, shown = drawn(html_page(facts)), facts.summary.to_json()
    for ours, theirs in zip(found["finalists"], shown["finalists"]["contestants"], strict=True):
        assert ours["trial"] == theirs["trial"]
        assert {name: ours[name] for name in ("mean", "low", "high")} == theirs["interval"]
    torch, int8 = found["variants"]
    assert (torch["value"], torch["ms"]) == (shown["torch"]["metrics"]["f1_macro"], shown["torch"]["latency_p50_ms"])
    measured = shown["variants"][0]["measurement"]
    assert (int8["value"], int8["ms"]) == (measured["metrics"]["f1_macro"], measured["latency_p50_ms"])
    names = ("trial", "repeat", "slot", "began", "ended", "how")
    for ours, theirs in zip(found["timeline"]["stints"], shown["timeline"], strict=True):
        assert [*ours[:3], *ours[4:]] == [theirs[name] for name in names]
    assert [phase["what"] for phase in found["timeline"]["phases"]] == ["search", "finalists"]
    assert "2 workers over 14 s of search and finalists: idle 38% of that" in markdown(facts)


def test_advice_names_the_setting_that_the_file_uses():
    values = [0.5, 0.6, 0.7]
    rising = trial_result(value=0.7, evaluations=[evaluation(i, (i + 1) / 3, v) for i, v in enumerate(values)])
    facts = facts_of(trial_record(0, result=rising), budget_setting="max_steps")
    for text in (html_page(facts), markdown(facts)):
        assert "try more max_steps" in text
        assert "max_epochs" not in text


def test_rows_data_and_the_line_that_reproduces_are_in_every_text():
    champion = np.array([[0, 0, 0.1, 0, 0], [0, 1, 2.0, 0, 0]], float)
    rows = row_findings(JudgedRows("text-classification", ["a", "b"], [{"text": "x y"}, {"text": HOSTILE}], champion,
                                   champion[::-1], 2))  # fmt: skip
    data = PreparedData(
        rows={"train": 9000, "validation": 2, "test": 1}, labels=["a"], tokens_dir="", model_dir="", fingerprint="",
        model_fingerprint="", duplicates=3, truncated=0, train_tokens=12345, gpus=0, notes=["noted"], max_length=64,
        split_hashes={"train": "abcdef0123456789"}, label_counts={"train": {"a": 9000}},
    )  # fmt: skip
    facts = facts_of(trial_record(0))
    facts = dataclasses.replace(
        facts, rows=rows, summary=dataclasses.replace(facts.summary, data=data), origin=Origin("s#0", {"torch": "2.8"}),
        config={**facts.config, "data": {"train": {"source": "/somebody/rows.jsonl"}, "split_seed": 7}},
    )  # fmt: skip
    page = html_page(facts)
    for text in (html.unescape(page), markdown(facts)):
        for said in ("the champion alone has right 1 of 2 rows, the baseline alone 1", "true label: a", "rows.jsonl",
                     "12,345 training tokens; at most 64 a row", "rows were cut with seed 7", "9,000 (100.0%)",
                     "abcdef012345", "3 duplicate rows dropped", "noted", "hpo reproduce 's#0'", "torch"):  # fmt: skip
            assert said in text, said
    assert "/somebody" not in html.unescape(page).replace(facts.config["data"]["train"]["source"], "")
    assert not [given for tag, given in Elements(page).found if "onerror" in given]


def test_variants_of_a_chosen_trial_and_the_release_say_whose_they_are():
    found = {"variant": "int8", "measurement": None, "drop": None, "passed": False, "reason": "because"}
    release = {"name": "shared", "version": "2", "uri": "models:/shared@champion", "variant": "fp32", "trial": 1,
               "run_id": "run1"}  # fmt: skip
    facts = facts_of(
        trial_record(0, value=0.9), trial_record(1), variants=[{**found, "failed_gates": ["max_drop"]}],
        torch={"metrics": {"f1_macro": 0.5}, "latency_p50_ms": 1.0}, variants_trial=1, chosen_trial=1, release=release,
    )  # fmt: skip
    for text in (html_page(facts), markdown(facts)):
        assert "ONNX variants of trial 1" in text
        assert "int8 failed: because; gate: max_drop" in text
        assert "version 2 (fp32, trial 1 as you chose)" in text


def test_it_loads_nothing_and_a_policy_says_so():
    elements = Elements(html_page(facts_of(*searched(12)))).found
    assert not [tag for tag, given in elements if given.get("src", "").startswith("http") or tag == "link"]
    (policy,) = [given["content"] for tag, given in elements if given.get("http-equiv") == "content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html_page(facts_of(*searched(12))))


def test_what_people_wrote_is_text():
    page = html_page(with_texts(HOSTILE))
    elements = Elements(page).found
    assert [tag for tag, _ in elements].count("script") == 2
    assert not [given for tag, given in elements if "onerror" in given]
    assert json.loads(Elements(page).scripts[0])["trials"][0]["p"] == [HOSTILE]
    written = markdown(with_texts(HOSTILE))
    assert "<img" not in written.replace("\\<img", "")
    assert {line.replace("\\|", "").count("|") for line in written.splitlines() if line.startswith("|")} == {5, 6}


def test_a_long_leaderboard_shows_the_best_and_says_so():
    page = html_page(facts_of(*searched(MOST_ROWS + 20)))
    assert page.count('<tr data-trial="') == MOST_ROWS
    assert f"best {MOST_ROWS} of {MOST_ROWS + 20} trials" in page
    assert len(drawn(page)["trials"]) == MOST_ROWS + 20


def test_a_sweep_that_has_barely_begun_has_a_page():
    page = html_page(facts_of(trial_record(0, "running")))
    assert "no trial is complete yet" in page
    assert "Importances need 10 complete trials" in page
    assert drawn(page)["champion"] is None


def test_numbers_that_json_does_not_have_are_null():
    page = html_page(facts_of(trial_record(0, value=float("nan"), curve=[(0.5, float("inf"))])))
    assert drawn(page)["trials"][0] == {
        "n": 0, "s": "complete", "v": None, "p": [], "c": [[0.5, None]],
    }  # fmt: skip


def test_an_interval_without_ends_leaves_the_page_its_charts():
    nan = float("nan")
    without = contestant(3, 0.8) | {"interval": {"mean": 0.8, "low": nan, "high": nan}}
    finalists = {"contestants": [without, contestant(0, 0.7, is_baseline=True)], "champion": 3, "identity": "x"}
    facts = facts_of(*searched(12), finalists=finalists)
    for page in (html_page(facts), html_comparison(Comparison([facts, facts], []))):
        assert drawn(page)["metric"] == "f1_macro"
    assert [found["trial"] for found in charts(facts)["finalists"]] == [0]


def test_variants_are_drawn_by_the_direction_of_what_the_gate_compares():
    """The objective is a metric of one's own, to be minimized; the gate is the task's first one."""
    found = charts(facts_of(trial_record(0, metrics={"mine": 0.5}), objectives=(Objective("mine", "minimize"),)))
    assert (found["maximize"], found["gate"]) == (False, {"metric": "f1_macro", "maximize": True})


def test_null_has_a_place_on_its_axis_and_a_setting_that_is_not_there_has_none():
    space = {"neftune_noise_alpha": {"type": "choice", "values": [None, 5.0]}}
    records = [trial_record(0, params={"neftune_noise_alpha": None}), trial_record(1, params={"lora_r": 8})]
    facts = dataclasses.replace(facts_of(*records), space=from_resolved(space))
    found = charts(facts)
    assert [trial["p"] for trial in found["trials"]] == [["null", None], [None, 8]]
    assert found["dimensions"][0]["values"] == ["null", 5.0]


def test_a_setting_that_only_some_trials_have_is_named_beside_the_importances():
    records = searched(40)
    some = [dataclasses.replace(r, params={k: v for k, v in r.params.items() if k != "lora_r" or r.number % 2})
            for r in records]  # fmt: skip
    for text in (html_page(facts_of(*some)), markdown(facts_of(*some))):
        assert "only some of the trials have it: lora_r" in html.unescape(text).replace("\\", "")
    for text in (html_page(facts_of(*records)), markdown(facts_of(*records))):
        assert "only some of the trials" not in text


def test_the_share_of_a_label_is_of_the_rows_also_where_a_row_has_several():
    data = dataclasses.replace(INSPECTION, label_counts={"train": {"a": 900, "b": 500}, "test": {"a": 50}})
    facts = facts_of(trial_record(0))
    several = dataclasses.replace(facts.summary, data=data, task="multi-label-classification")
    rows = labels_part(dataclasses.replace(facts, summary=several)).rows
    assert rows == [["a", "900 (90.0%)", "50 (50.0%)"], ["b", "500 (50.0%)", "0 (0.0%)"]]


def test_what_is_cut_is_said_in_every_text():
    data = dataclasses.replace(INSPECTION, label_counts={"train": {f"label {n}": 1 for n in range(60)}})
    failed = [trial_record(n, "failed", None, cause="crash", message="broken") for n in range(1, 31)]
    facts = facts_of(trial_record(0), *failed)
    facts = dataclasses.replace(facts, summary=dataclasses.replace(facts.summary, data=data))
    page = html_page(facts)
    assert page.count("crash: broken") == 20
    assert "<h3>Failed trials, the first 20 of 30</h3>" in page
    for text in (page, markdown(facts)):
        assert "Labels, the first 50 of 60" in text
    assert f"best {MOST_ROWS} of {MOST_ROWS + 20} trials" in markdown(facts_of(*searched(MOST_ROWS + 20)))


def test_a_metric_and_a_setting_of_one_name_are_two_columns():
    facts = facts_of(trial_record(0, params={"loss": "focal"}, metrics={"f1_macro": 0.5, "loss": 0.25}))
    assert list(csv.DictReader(io.StringIO(trials_csv(facts)))) == [
        {"trial": "0", "state": "complete", "value": "0.5", "seconds": "1.0", "cause": "", "loss": "focal",
         "f1_macro": "0.5", "validation/loss": "0.25"}
    ]  # fmt: skip


def test_markdown_has_the_sentences_and_csv_every_trial_in_full():
    facts = facts_of(*searched(30))
    written = markdown(facts)
    assert written.startswith("# s\n\n**champion: trial")
    assert "## Which settings matter" in written
    rows = list(csv.DictReader(io.StringIO(trials_csv(facts))))
    shown = facts.summary.to_json()["trials"]
    assert [int(row["trial"]) for row in rows] == [trial["number"] for trial in shown]
    assert [float(row["value"]) for row in rows] == [trial["value"] for trial in shown]
    assert [float(row["learning_rate"]) for row in rows] == [trial["params"]["learning_rate"] for trial in shown]


@pytest.mark.parametrize(("count", "megabytes"), [(200, 1), (10_000, 6)])
def test_a_page_is_light(count, megabytes):
    assert len(html_page(facts_of(*searched(count))).encode()) < megabytes * 1e6


def test_a_row_with_a_line_separator_in_its_text_is_one_row(tmp_path):
    """Texts from the web have them, and JSON leaves them as they are."""
    rows = [{"text": "one\u2028row\u0085of several lines\u000b"}, {"text": "another"}]
    file = tmp_path / "worst_examples.jsonl"
    file.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    found = read_champion_files({file.name: str(file)})
    assert (found.worst_rows, found.unread) == (rows, [])
