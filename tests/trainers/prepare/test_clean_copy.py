"""`hpo check --fix`: a clean copy of the rows, each change told, and the copy has nothing left to tell."""

from __future__ import annotations

import datetime
import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.cli.main import cli
from hpo.errors import ConfigError, UsageError
from tests.conftest import reviews, write_jsonl
from tests.trainers.data.test_sources import write
from trainers.data.sources import DataProblem
from trainers.data.splits import SPLITS
from trainers.prepare import clean_copy as cleaning
from trainers.prepare.check import check
from trainers.protocol.requests import Check
from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef, Workload

COLUMNS = {"text": "text", "label": "label"}
BROKEN = ["not json", "[1]", '{"text": ""}', '{"text": "a film"}', '{"text": "\\ud83d", "label": "x"}']


@pytest.fixture(scope="module")
def fix(tiny):
    """Check three splits (or fewer) of reviews, and write a clean copy to `out`, if any."""

    def fix(out, max_length=64, **files):
        sources = {name: SourceRef(str(file)) for name, file in files.items()}
        data = DataRef(sources["train"], sources.get("validation"), sources.get("test"), COLUMNS, 8, 8, 0)
        work = Workload("text-classification", ModelRef(str(tiny / "encoder")), data, max_length, "fp32", "")
        return check(Check(work, str(out) if out else None))

    return fix


@pytest.fixture
def run(home, requests_here):
    def run(*arguments):
        return CliRunner().invoke(cli, ["--home", str(home), "check", *map(str, arguments)])

    return run


def lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def messy(folder: Path) -> dict[str, str]:
    """A training file with everything that can be wrong with a row, and a validation file that shares some."""
    rows = reviews(80)
    good = [json.dumps(row, ensure_ascii=False) for row in rows]
    good[0] = json.dumps({**rows[0], "text": rows[0]["text"] + " café ☕", "n": 1.50, "more": [None, {}]})
    again = json.dumps({"text": f" {rows[3]['text']}", "label": "positive"})
    content = "\n".join([*good[:5], "not json", good[2], again, "", *good[5:], '{"text": " "}', ""])
    (folder / "t.jsonl").write_bytes(b"\xef\xbb\xbf" + content.encode())
    write_jsonl(folder / "v.jsonl", [*reviews(12, seed=9), rows[7]])
    return {"train": "t.jsonl", "validation": "v.jsonl"}


def test_each_row_that_is_left_out_is_told_with_its_line(write_yaml, run, home, tmp_path):
    path, out = write_yaml(data={**messy(tmp_path), "test_size": 8}), tmp_path / "new" / "clean"
    done = run(path, "--fix", out, "--json")
    assert done.exit_code == 0, done.output
    copy = json.loads(done.stdout)["copy"]
    assert [(row["split"], row["where"].removeprefix(f"{tmp_path}/"), row["why"]) for row in copy["dropped"]] == [
        ("train", "t.jsonl:6", "is not JSON: Expecting value (column 1)"),
        ("train", "t.jsonl:85", "text is ' '"),
        ("train", "t.jsonl:7", f"has the same input as {tmp_path}/t.jsonl:3"),
        ("train", "t.jsonl:8", f"has the same input as {tmp_path}/t.jsonl:4, with other values"),
        ("train", "t.jsonl:12", f"has the same input as {tmp_path}/v.jsonl:13 of validation"),
    ]
    assert copy["dir"] == str(out)
    assert copy["rows"] == {"train": 79, "validation": 13}
    assert copy["marked_files"] == [f"{tmp_path}/t.jsonl"]
    assert sorted(file.name for file in out.iterdir()) == ["train.jsonl", "validation.jsonl"]
    assert [file.name for file in out.parent.iterdir()] == ["clean"]
    assert not home.exists()


def test_of_rows_that_the_tokenizer_reads_alike_one_is_kept(fix, tmp_path):
    """The tokenizer of these tests drops spaces. Of one file too: its rows may come into two splits."""
    rows = reviews(60)
    spaced = [{**row, "text": row["text"].replace(" ", "  ")} for row in rows[:2]]
    train, test = write_jsonl(tmp_path / "t.jsonl", [*rows, spaced[0]]), write_jsonl(tmp_path / "s.jsonl", spaced[1:])
    copy = fix(tmp_path / "out", train=train, test=test).copy
    why = "but for case, accents or spaces that the tokenizer drops"
    assert [(row.where, row.why) for row in copy.dropped] == [
        (f"{train}:2", f"is {test}:1 of test {why}"),
        (f"{train}:61", f"is {train}:1 {why}"),
    ]
    assert copy.rows == {"train": 59, "test": 1}
    assert lines(tmp_path / "out/test.jsonl") == lines(test)
    after = fix(None, train=tmp_path / "out/train.jsonl", test=tmp_path / "out/test.jsonl")
    assert not any("the tokenizer drops" in note for note in after.notes)


def test_running_text_has_no_clean_copy(tiny, tmp_path):
    """As a row of JSON Lines it would be one text, of which no end can be held out."""
    (tmp_path / "book.txt").write_text("a film with a story\n" * 200)
    data = DataRef(SourceRef(str(tmp_path / "book.txt")), None, None, {"text": "text"}, 0.1, 0.1, 0)
    work = Workload("causal-lm", ModelRef(str(tiny / "chat")), data, 16, "fp32", "")
    with pytest.raises(DataProblem) as problem:
        check(Check(work, str(tmp_path / "out")))
    (finding,) = problem.value.findings
    assert (finding.where, finding.expected) == (f"{tmp_path}/book.txt:1", "correct the file itself")
    assert not (tmp_path / "out").exists()


def test_what_is_kept_is_as_it_was(fix, tmp_path):
    fix(tmp_path / "clean", **{name: tmp_path / file for name, file in messy(tmp_path).items()})
    first = reviews(1)[0]
    wanted = {**first, "text": first["text"] + " café ☕", "n": 1.5, "more": [None, {}]}
    assert lines(tmp_path / "clean/train.jsonl")[0] == json.dumps(wanted, ensure_ascii=False)
    assert lines(tmp_path / "clean/validation.jsonl") == lines(tmp_path / "v.jsonl")


def test_the_text_shows_the_first_twenty_and_a_count(write_yaml, run, tmp_path):
    rows = reviews(60)
    train = write_jsonl(tmp_path / "t.jsonl", [*rows, *rows[:23]])
    done = run(write_yaml(data={"train": str(train), "validation_size": 8, "test_size": 8}), "--fix", tmp_path / "out")
    assert done.exit_code == 0, done.output
    printed = done.output.splitlines()
    at = printed.index("left out 23 rows:")
    assert printed[at - 1] == f"wrote {tmp_path}/out/train.jsonl: 60 rows"
    assert printed[at + 1] == f"  train: {train}:61: has the same input as {train}:1"
    assert printed[at + 20] == f"  train: {train}:80: has the same input as {train}:20"
    assert printed[at + 21 :] == [
        "  and 3 more: --json has all of them",
        "to train on the copy, write its files in the YAML: data.train",
    ]


def test_nothing_to_change_is_said_and_copied_all_the_same(write_yaml, run, tmp_path, tiny):
    done = run(write_yaml(), "--fix", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "left out no row\n" in done.output
    assert lines(tmp_path / "out/train.jsonl") == lines(tiny / "reviews.jsonl")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["train.jsonl"]


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_a_folder_that_is_there_is_left_alone(write_yaml, run, tmp_path, kind):
    out = tmp_path / "out"
    {"folder": out.mkdir, "file": out.touch, "dangling link": lambda: out.symlink_to("nowhere")}[kind]()
    done = run(write_yaml(), "--fix", out)
    assert isinstance(done.exception, UsageError)
    assert done.exception.exit_code == 2
    assert str(done.exception) == f"--fix {out}: already exists; choose a new folder"
    assert not out.is_dir() or not list(out.iterdir())


def test_a_copy_does_not_go_among_the_data(write_yaml, run, tmp_path):
    """The next check, and the sweep, would read it too: every row twice."""
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data/rows.jsonl", reviews(80))
    done = run(write_yaml(data={"train": "data"}), "--fix", tmp_path / "data/clean")
    assert done.exception.exit_code == 2
    assert str(done.exception).endswith(f"clean: is inside data.train, {tmp_path}/data; choose a folder elsewhere")
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["rows.jsonl"]


def test_a_folder_of_the_home_directory_that_is_there_is_left_alone(write_yaml, run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "out").mkdir()
    done = run(write_yaml(), "--fix", "~/out")
    assert str(done.exception) == "--fix ~/out: already exists; choose a new folder"
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"max_length": 4096}, "got 4096, but the model has 128 positions"),
        ({"test": "s.json"}, "is not JSON: Expecting value"),
        ({"train": "one.jsonl"}, "all rows have the label 'x'"),
        ({"validation": "odd.jsonl"}, "labels that no training row has: odd"),
        ({"train": "bad.jsonl"}, "no rows left for train"),
    ],
    ids=["model", "source", "one label", "unknown label", "no sound row"],
)
def test_where_no_row_alone_is_to_blame_nothing_is_written(fix, tmp_path, changes, found):
    given_files = {**messy(tmp_path), "test": "v.jsonl", **changes}
    write_jsonl(tmp_path / "one.jsonl", [{"text": f"film {n}", "label": "x"} for n in range(50)])
    write_jsonl(tmp_path / "odd.jsonl", [{"text": "a film", "label": "odd"}])
    write_jsonl(tmp_path / "bad.jsonl", [{"text": "a film"}])
    (tmp_path / "s.json").write_text("[")
    before = sorted(tmp_path.iterdir())
    length = given_files.pop("max_length", 64)
    try:
        checked = fix(tmp_path / "out", length, **{name: tmp_path / file for name, file in given_files.items()})
        findings = checked.findings
        assert checked.copy is None
    except DataProblem as problem:
        findings = problem.findings
    assert any(finding.found.startswith(found) for finding in findings)
    assert not any(finding.found.startswith("is not JSON: Expecting value (column") for finding in findings)
    assert sorted(tmp_path.iterdir()) == before


def test_a_refused_copy_ends_as_a_bad_config(write_yaml, run, tmp_path):
    done = run(write_yaml(training={"max_length": 4096}), "--fix", tmp_path / "out")
    assert isinstance(done.exception, ConfigError)
    assert done.exception.exit_code == 2
    assert done.stderr == f"--fix {tmp_path}/out: wrote nothing, because these problems are not of single rows\n"
    assert not (tmp_path / "out").exists()


def test_values_that_json_cannot_hold_are_refused_by_their_column(fix, tmp_path):
    rows = [{**row, "day": datetime.date(2024, 1, 1), "raw": b"x"} for row in reviews(60)]
    with pytest.raises(DataProblem) as problem:
        fix(tmp_path / "out", train=write(tmp_path / "t.parquet", rows))
    assert [(finding.where, finding.found) for finding in problem.value.findings] == [
        (f"{tmp_path}/t.parquet row 1", "day: Object of type date is not JSON serializable"),
        (f"{tmp_path}/t.parquet row 1", "raw: Object of type bytes is not JSON serializable"),
    ]
    assert not (tmp_path / "out").exists()


def test_a_copy_that_cannot_be_finished_leaves_nothing(fix, tmp_path, tiny, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cleaning.os, "fsync", full)
    (tmp_path / "outs").mkdir()
    with pytest.raises(OSError, match="No space left"):
        fix(tmp_path / "outs" / "out", train=tiny / "reviews.jsonl")
    assert not list((tmp_path / "outs").iterdir())


def test_a_sentence_is_dropped_whole_and_once(tiny, tmp_path):
    names = ["Ada", "Bob", "Cleo", "Dan"]
    good = "".join(f"{a} B-PER\nmet O\n{b} B-PER\n\n" for a in names for b in names)
    (tmp_path / "t.conll").write_text(good + "Ada B-PER\nmet\nBob B-PER extra\n")
    columns = {"words": "words", "tags": "tags", "text": "text", "entities": "entities"}
    data = DataRef(SourceRef(str(tmp_path / "t.conll")), None, None, columns, 4, 4, 0)
    work = Workload("token-classification", ModelRef(str(tiny / "encoder")), data, 64, "fp32", "")
    copy = check(Check(work, str(tmp_path / "out"))).copy
    (dropped,) = copy.dropped
    assert dropped.where == f"{tmp_path}/t.conll:66"
    assert dropped.why == f"has 1 column; {tmp_path}/t.conll:67: has 3 columns"
    assert copy.rows == {"train": 16}
    assert json.loads(lines(tmp_path / "out/train.jsonl")[0])["words"] == ["Ada", "met", "Ada"]


rows_of = st.lists(st.one_of(st.integers(0, 40), st.sampled_from(BROKEN)), max_size=40)


@settings(max_examples=25)
@given(rows_of, rows_of, rows_of, st.integers(0, 1 << 30))
def test_a_clean_copy_is_clean(fix, tmp_path_factory, train, validation, test, seed):
    """Whatever the mess: no findings, no duplicates, no leaks; and it keeps every input that was sound."""
    folder, pool, generator = tmp_path_factory.mktemp("mess"), reviews(41, seed=3), random.Random(seed)
    files = {}
    for number, (name, picked) in enumerate(zip(SPLITS, (train, validation, test), strict=True)):
        base = reviews(12, seed=50 + number)  # so that no split is left empty
        chosen = [json.dumps(pool[pick]) if isinstance(pick, int) else pick for pick in picked]
        chosen += [json.dumps(row) for row in base]
        generator.shuffle(chosen)
        files[name] = folder / f"{name}.jsonl"
        files[name].write_bytes(generator.choice([b"", b"\xef\xbb\xbf"]) + "\n".join(chosen).encode())
    before = fix(None, **files)
    fixed = fix(folder / "out", **files)
    assert fixed.findings == []
    after = fix(None, **{name: folder / f"out/{name}.jsonl" for name in files})
    assert after.findings == []
    assert all((facts.duplicates, facts.shared) == (0, {}) for facts in after.splits.values())
    assert (
        {n: s.rows for n, s in after.splits.items()} == fixed.copy.rows == {n: s.rows for n, s in before.splits.items()}
    )
    given_rows = sum(len([line for line in lines(file) if line.strip()]) for file in files.values())
    assert sum(fixed.copy.rows.values()) + len(fixed.copy.dropped) == given_rows
    assert not any("byte order" in note for note in after.notes)
