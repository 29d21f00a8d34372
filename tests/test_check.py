"""`hpo check`: every problem with its line, what the data is, and what a trial will see."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from hpo.check import check_sweep
from hpo.cli import cli
from hpo.errors import ConfigError
from hpo.home import Home
from tests.conftest import reviews, write_jsonl
from trainers.checkup import check
from trainers.sources import read_rows
from trainers.spec import Check, DataRef, ModelRef, Workload


@pytest.fixture
def look(tiny):
    def at(task, model, train, validation=None, columns=None, max_length=16, test=None):
        from trainers.catalog import TASKS

        names = {**TASKS[task].columns, **(columns or {})}
        files = [str(file) if file else None for file in (train, validation, test)]
        return check(
            Check(Workload(task, ModelRef(str(tiny / model)), DataRef(*files, names, 8, 8, 0), max_length, "fp32", ""))
        )

    return at


WORDS = ["film", "story", "actor", "scene", "plot", "music", "camera", "ending"]
PAIRS = [(a, b) for a in WORDS for b in WORDS]
BROKEN = {
    "a.jsonl": ('{"text": "a film", "label": "x"}\n{"text": "a', "a.jsonl:2: is not JSON"),
    "a.csv": ("text,label\na film,x\na,b,c\n", "a.csv:3: has too many or too few columns"),
    "a.tsv": ("text\tlabel\na film\tx\na\n", "a.tsv:3: has too many or too few columns"),
    "a.json": ('[{"text": "a film", "label": "x"}, 3]', "a.json item 2: is int, not an object"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_of_each_format_is_named_by_its_line(look, tmp_path, name):
    content, problem = BROKEN[name]
    (tmp_path / name).write_text(content)
    told = [
        f"{finding.where}: {finding.found}"
        for finding in look("text-classification", "encoder", tmp_path / name).findings
    ]
    assert any(problem in line for line in told)


def test_a_conll_file_is_read_by_sentences_and_its_lines_are_named(tmp_path):
    file = tmp_path / "a.conll"
    file.write_text("-DOCSTART- O\n\nAda NNP B-PER\nwrote VBD O\n\nOslo NNP\nis VBZ O\n")
    findings = []
    rows = read_rows(str(file), "train", findings)
    assert [(row.where, row.values["words"], row.values["tags"]) for row in rows] == [
        (f"{file}:3", ["Ada", "wrote"], ["B-PER", "O"]),
        (f"{file}:7", ["is"], ["O"]),
    ]
    assert [(finding.where, finding.found) for finding in findings] == [(f"{file}:6", "has 2 columns")]


def test_folders_and_patterns_of_files_are_read_in_order_of_their_names(tmp_path):
    for name in ("b.txt", "a.txt", "ignored.md"):
        (tmp_path / name).write_text(f"first of {name}\n\nsecond of {name}\n")
    wanted = [f"{n} of {name}" for name in ("a.txt", "b.txt") for n in ("first", "second")]
    assert [row.values["text"] for row in read_rows(str(tmp_path), "train", [])] == wanted
    assert [row.values["text"] for row in read_rows(str(tmp_path / "*.txt"), "train", [])] == wanted


def test_duplicates_leaks_lengths_and_labels_are_counted(look, tmp_path):
    train = [*reviews(60), reviews(1)[0], {"text": "film " * 40, "label": "rare"}]
    held_out = [*reviews(20, seed=5), *reviews(3)]
    checked = look(
        "text-classification", "encoder", write_jsonl(tmp_path / "t.jsonl", train),
        write_jsonl(tmp_path / "v.jsonl", held_out), test=write_jsonl(tmp_path / "s.jsonl", reviews(9, seed=8)),
    )  # fmt: skip
    facts = checked.splits["train"]
    assert not checked.findings
    assert (facts.duplicates, facts.shared) == (1, {"validation": 3})
    assert (facts.too_long, facts.tokens_cut, facts.token_percentiles["max"]) == (1, 42 - 16, 42)
    assert facts.labels["rare"] == 1
    assert any("3 rows are in train and in validation" in note for note in checked.notes)
    assert any("labels with fewer than 10 training rows: rare (1)" in note for note in checked.notes)


def test_a_label_that_no_training_row_has_is_a_finding(look, tmp_path):
    checked = look(
        "text-classification", "encoder", write_jsonl(tmp_path / "t.jsonl", reviews(60)),
        write_jsonl(tmp_path / "v.jsonl", [*reviews(20, seed=5), {"text": "a film", "label": "unheard-of"}]),
    )  # fmt: skip
    (finding,) = checked.findings
    assert finding.where == "data.validation"
    assert "unheard-of" in finding.found


def test_a_split_that_is_left_without_rows_is_a_finding(look, tmp_path):
    checked = look("text-classification", "encoder", write_jsonl(tmp_path / "t.jsonl", reviews(8)))
    assert [finding.where.split(":")[0] for finding in checked.findings] == ["data"]


def test_rows_with_as_many_labels_as_tokens_are_counted_by_label(look, tmp_path):
    """[CLS] a film [SEP], and four labels: not to be taken for a tag per token."""
    rows = [{"text": f"{a} {b}", "labels": ["p", "q", "r", "s"][: 2 + n % 3]} for n, (a, b) in enumerate(PAIRS)]
    facts = look("multi-label-classification", "encoder", write_jsonl(tmp_path / "t.jsonl", rows)).splits["train"]
    assert facts.labels["p"] == facts.labels["q"] == facts.rows


def test_a_chat_row_is_shown_with_what_is_learned_of_it(look, tiny):
    first = look("chat", "chat", tiny / "chats.jsonl", max_length=64).examples[0]
    learned = [piece.text for piece in first.pieces if piece.is_learned]
    assert learned
    assert all(text.startswith("it is") for text in learned)
    assert any("what is" in piece.text for piece in first.pieces if not piece.is_learned)


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_the_command_tells_all_and_writes_nothing(write_yaml, home, how):
    file = write_yaml()
    done = CliRunner().invoke(cli, ["--home", str(home), "check", str(file), *how])
    assert done.exit_code == 0, done.output
    if how:
        assert json.loads(done.stdout)["splits"]["train"]["rows"] == 180
    else:
        assert "no problems found" in done.output
    assert not home.exists()


def test_findings_end_the_command_as_a_bad_config(write_yaml, home, tmp_path):
    rows = write_jsonl(tmp_path / "r.jsonl", [*reviews(80), {"text": ""}])
    checked = check_sweep(write_yaml(data={"train": str(rows)}), Home(home))
    assert [finding["where"] for finding in checked["findings"]] == [f"{rows}:81"]
    done = CliRunner().invoke(cli, ["--home", str(home), "check", str(tmp_path / "sweep.yaml")])
    assert isinstance(done.exception, ConfigError)
    assert done.exception.exit_code == 2
