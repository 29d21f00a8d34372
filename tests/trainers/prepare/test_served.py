"""`hpo check --served`: what a server is asked is compared with training rows; chance is not reported, shifts are."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from click.testing import CliRunner

from hpo.cli.main import cli
from tests.conftest import reviews, write_jsonl
from trainers.data.formats.base import DataProblem
from trainers.prepare.check import check
from trainers.prepare.drift import Difference, beyond_chance, longer, shares, words
from trainers.prepare.served_log import asked_of, read_logs
from trainers.protocol.requests import Check
from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef, Workload


def predicted(row, label, **more):
    """A row of a log with texts."""
    return {
        "task": "text-classification", "text": row["text"], "label": None, "characters": len(row["text"]),
        "predicted": {"label": label}, **more,
    }  # fmt: skip


def without_texts(row):
    return {key: value for key, value in row.items() if key not in ("text", "label")}


@pytest.fixture(scope="module")
def compare(tiny, tmp_path_factory):
    def compare(rows):
        folder = tmp_path_factory.mktemp("served")
        data = DataRef(SourceRef(str(write_jsonl(folder / "t.jsonl", reviews(400)))), None, None, COLUMNS, 40, 40, 0)
        work = Workload("text-classification", ModelRef(str(tiny / "encoder")), data, 64, "fp32", "")
        log = write_jsonl(folder / "predictions-000001.jsonl", rows)
        return check(Check(work, served=[str(log)])).served

    return compare


COLUMNS = {"text": "text", "label": "label"}


def test_texts_like_those_of_training_have_not_moved(compare):
    found = compare([predicted(row, row["label"]) for row in reviews(300, seed=5)])
    assert (found.rows, found.texts, found.others) == (300, 300, 0)
    assert found.shifts == []
    assert found.notes[0] == "nothing has moved beyond chance"
    assert found.notes[1].startswith("compared 300 predictions with ")


def test_what_has_moved_is_said_with_its_size(compare):
    rows = [
        predicted({"text": f"{row['text']} zebra refund {row['text']}"}, "negative") for row in reviews(300, seed=5)
    ]
    found = compare([*rows, {**rows[0], "task": "chat"}])
    kinds = {shift.kind for shift in found.shifts}
    assert kinds == {"length", "label", "word", "rare tokens"}
    (length,) = [shift for shift in found.shifts if shift.kind == "length"]
    assert (length.name, length.effect > 0.95, length.served > length.trained) == ("tokens", True, True)
    assert {"zebra", "refund"} <= {shift.name for shift in found.shifts if shift.kind == "word"}
    said = "\n".join(found.notes)
    assert "served texts are longer: in " in said
    assert "label negative: +" in said
    assert "refund (100.0% of texts, 0.0% in training)" in said
    assert "rare tokens are" in said
    assert all(shift.p_value < 0.05 for shift in found.shifts)
    assert found.others == 1


def test_a_log_without_texts_has_lengths_and_labels(compare):
    found = compare([without_texts(predicted({"text": "a" * 999}, "negative")) for _ in range(100)])
    assert (found.rows, found.texts) == (100, 0)
    assert {shift.kind for shift in found.shifts} == {"length", "label"}
    assert found.shifts[0].name == "characters"
    assert "the log has no texts, so words and tokens are not compared" in found.notes[-1]
    nothing = compare([{**predicted({"text": "a"}, "x"), "task": "chat"}])
    assert nothing.notes == ["the log has no prediction of text-classification"]


def refusal(filter_, *categories, task="text-classification"):
    return {"task": task, "characters": 9, "refused": {"filter": filter_, "categories": list(categories)}}


def test_refused_prompts_are_counted_and_not_compared(compare):
    rows = [predicted(row, row["label"]) for row in reviews(300, seed=5)]
    of_filters = [refusal("words", "words"), refusal("tone", "toxic", "insult"), refusal("tone", "toxic")] * 200
    found = compare([*rows, *of_filters, refusal("words", "words", task="chat")])
    assert (found.rows, found.others, found.shifts) == (300, 1, [])
    assert (found.refused, found.refused_by) == (600, {"words": {"words": 200}, "tone": {"toxic": 400, "insult": 200}})
    assert found.notes[-1] == "filters refused 600 prompts (words 200, tone: toxic 400, tone: insult 200)"
    alone = compare([refusal("words", "words")])
    assert alone.notes == ["the log has no prediction of text-classification", "filters refused 1 prompt (words 1)"]


def test_chance_alone_is_reported_in_fewer_than_5_of_100_comparisons():
    """Both groups drawn from the same words, labels and lengths."""
    generator = random.Random(1)
    vocabulary = [f"w{i}" for i in range(300)]
    weights = [1 / (i + 1) for i in range(300)]

    def draw(count):
        return [" ".join(generator.choices(vocabulary, weights, k=generator.randint(3, 30))) for _ in range(count)]

    alarms = 0
    for _ in range(100):
        first, second = draw(200), draw(120)
        labels = [{name: sum(generator.random() < 0.3 for _ in range(n)) for name in "abc"} for n in (200, 120)]
        families = {
            "word": words(first, second),
            "length": [longer("tokens", [len(t.split()) for t in first], [len(t.split()) for t in second])],
            "label": shares(*labels, (200, 120)),
        }
        alarms += any(beyond_chance(families).values())
    assert alarms <= 10  # 5 expected at most; 11 or more come in 1 of 100 such tests


def test_one_text_that_repeats_a_word_is_no_sign():
    usual = ["a plain text"] * 100
    found = {one.name: one for one in words(usual, [*usual, "spam " * 500, "spam", "spam", "spam", "spam"])}
    assert found["spam"].after == pytest.approx(5 / 105)
    assert found["spam"].p_value > 0.01
    many = {one.name: one for one in words(usual, [*usual[:50], *["spam"] * 50])}
    assert many["spam"].p_value < 1e-6
    assert many["spam"].effect > 0 > many["plain"].effect


def test_sizes_are_what_they_say():
    found = longer("tokens", [1, 2, 3], [3, 4])
    assert (found.before, found.after, found.effect) == (2, 3.5, pytest.approx(5.5 / 6))
    assert longer("tokens", [2, 2], [2]).p_value == 1.0
    (one,) = shares({"a": 50}, {"a": 90}, (100, 100))
    assert (one.effect, one.p_value < 1e-6) == (pytest.approx(0.4), True)
    family = [Difference(str(p), 0, 1, 1, p) for p in (0.9, 0.001, 0.02)]
    kept = beyond_chance({"a": family, "b": [], "c": [family[0]]})
    assert [one.p_value for one in kept["a"]] == [pytest.approx(0.006)]
    assert not np.isnan(kept["a"][0].p_value)


def test_the_input_of_a_row_is_found_for_each_task():
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]
    for task, values, columns, whole, said in [
        ("chat", {"m": chat}, {"messages": "m"}, "S\nU", "U"),
        ("chat", {"m": json.dumps(chat[:2])}, {"messages": "m"}, "S\nU", "U"),
        ("instruct", {"q": "Q", "a": "A"}, {"text_template": "{q}: {a}"}, "Q", "Q"),
        ("token-classification", {"w": ["a", "b"]}, {"words": "w", "text": "text"}, "a b", "a b"),
        ("text-to-text", {"input": "I", "output": "O"}, {"input": "input", "output": "output"}, "I", "I"),
        ("text-classification", {"text": "a", "p": "b"}, {"text": "text", "text_pair": "p"}, "a\nb", "a\nb"),
    ]:
        asked = asked_of(values, columns, task)
        assert (asked.whole, asked.said) == (whole, said), task


def test_what_is_no_log_is_refused_by_its_line(tmp_path):
    file = tmp_path / "p.jsonl"
    for line, found in [
        ('{"text": "a"}', "is not a row of a prediction log"),
        ("nonsense", "is not a row"),
        (r'{"task": "chat", "predicted": {}, "characters": 5, "prompt": "half \ud83d"}', "is not a row"),
        ('{"task": "chat", "refused": {"filter": "words"}}', "is damaged"),
        ('{"task": "chat", "predicted": {}, "messages": [{"role": "king", "content": ""}]}', "is damaged"),
        ('{"task": "chat", "predicted": {}, "messages": ["a"]}', "is damaged"),
    ]:
        file.write_text(f'{{"task": "chat", "predicted": {{}}}}\n{line}\n')
        with pytest.raises(DataProblem) as refused:
            read_logs([str(file)], "chat", {"messages": "messages"})
        assert refused.value.findings[0].where == f"{file}:2"
        assert found in refused.value.findings[0].found


@pytest.mark.usefixtures("requests_here")
def test_the_command_says_it_and_ends_with_0(write_yaml, home, tmp_path):
    write_jsonl(tmp_path / "t.jsonl", reviews(120))
    path = write_yaml(data={"train": "t.jsonl", "validation_size": 20, "test_size": 20})
    folder = tmp_path / "served"
    folder.mkdir()
    write_jsonl(folder / "predictions-000002.jsonl", [predicted(r, "positive") for r in reviews(60, seed=3)])

    def run(*arguments):
        return CliRunner().invoke(cli, ["--home", str(home), "check", str(path), *map(str, arguments)])

    done = run("--served", folder)
    assert done.exit_code == 0, done.output
    assert "served: label positive: +" in done.stdout
    facts = json.loads(run("--served", folder / "predictions-000002.jsonl", "--json").stdout)["served"]
    assert (facts["rows"], facts["shifts"][0]["kind"]) == (60, "label")
    assert json.loads(run("--json").stdout)["served"] is None
    refused = run("--served", tmp_path / "none")
    assert "no prediction log is there" in str(refused.exception)


@pytest.mark.usefixtures("requests_here")
def test_a_corrected_log_is_data_and_its_other_rows_are_left_out(write_yaml, home, tmp_path):
    """`data: {train: LOG}` refuses rows without a label by their lines, and `--fix` leaves them out."""
    rows = [predicted(row, "positive") for row in reviews(90, seed=3)]
    truth = [row["label"] for row in reviews(90, seed=3)]
    corrected = [
        {**row, "label": label} if i % 3 else row for i, (row, label) in enumerate(zip(rows, truth, strict=True))
    ]
    write_jsonl(tmp_path / "log.jsonl", [*corrected, refusal("words", "words")])
    path = write_yaml(data={"train": "log.jsonl", "validation_size": 10, "test_size": 10})

    def run(*arguments):
        return CliRunner().invoke(cli, ["--home", str(home), "check", str(path), *map(str, arguments)])

    refused = run("--json")
    problem, of_refused = refused.exception.problems
    assert problem.where.endswith("log.jsonl:1")
    assert "label is None (30 rows: " in str(problem)
    assert of_refused.where.endswith("log.jsonl:91")
    done = run("--fix", tmp_path / "clean", "--json")
    assert done.exit_code == 0, done.output
    kept = [json.loads(line) for line in (tmp_path / "clean" / "train.jsonl").read_text().splitlines()]
    assert {row["text"]: row["label"] for row in kept}.items() <= {
        (row["text"], label) for row, label in zip(rows, truth, strict=True)
    }
    assert 0 < len(kept) <= 60
