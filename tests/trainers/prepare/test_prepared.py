"""Every problem of data and model at once, in bounds, and why a split is left without rows."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import reviews, write_jsonl
from trainers.data.splits import SPLITS
from trainers.prepare.check import check
from trainers.prepare.data_findings import MOST_KINDS, bounded
from trainers.prepare.enough import Counts, why_empty
from trainers.prepare.inspect import data_fingerprint, inspect
from trainers.prepare.prepared import prepare
from trainers.protocol.catalog import TASKS as CATALOG
from trainers.protocol.events import Finding
from trainers.protocol.requests import Check, Inspect
from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef


@pytest.mark.parametrize("place", ["a:b.csv:{}", "a:b.json item {}", "a:b.parquet row {}"])
def test_problems_of_rows_are_listed_by_kind_and_counted(place):
    shown = bounded([Finding(place.format(i), f"is bad in way {i}") for i in range(MOST_KINDS + 7)])
    assert len(shown) == MOST_KINDS + 1
    source = place.replace(" item", "").replace(" row", "").rstrip(":{} ")
    assert shown[-1] == Finding(source, "and 7 more problems of rows")


def test_many_rows_with_one_problem_are_one_line_with_the_first_places():
    shown = bounded([Finding(f"f:{i}", "is empty", "expected text") for i in range(1, 6)])
    assert shown == [Finding("f:1", "is empty (5 rows: also f:2, f:3, f:4 and 1 more)", "expected text")]


def data(**changes):
    fields = {
        "train": SourceRef("/t"), "validation": None, "test": None, "columns": {}, "validation_size": 0.1,
        "test_size": 0.1, "seed": 0, **changes,
    }  # fmt: skip
    return DataRef(**fields)


def counts(train=0, validation=0, test=0, given=None, repeats=(), strata=2, learned=None, are_documents=False):
    cut = {"train": train, "validation": validation, "test": test}
    learned = {name: count for name, count in cut.items() if count} if learned is None else learned
    return Counts(given or {"train": sum(cut.values())}, list(repeats), cut, strata, are_documents, learned)


@pytest.mark.parametrize(
    ("found", "reasons"),
    [
        (counts(4), ["data.test_size: no rows left for test: a share of 0.1 of 4 rows is less than one row; "
                     "a larger share, or a number: test_size: 1",
                     "data.validation_size: no rows left for validation: a share of 0.1 of 4 rows is less than one "
                     "row; a larger share, or a number: validation_size: 1"]),
        (counts(2), ["data.train: no rows left for validation and test: train has 2 different rows; "
                     "at least 3: one each to train, validate and test"]),
        (counts(1, given={"train": 9}, repeats=[("train", "train")] * 8),
         ["data.train: no rows left for validation and test: train has 1 row (of 9 rows; the others are "
          "duplicates); at least 3: one each to train, validate and test"]),
        (counts(0, 9, 1, given={"train": 9, "validation": 9}, repeats=[("train", "validation")] * 9),
         ["data.train: no rows left for train: all 9 of its rows are in validation too, and held-out rows are never "
          "used for training; a source with rows that are not in validation"]),
        (counts(50, strata=50),
         ["data.label: no rows left for validation and test: all 50 rows have different labels, so none can "
          "be held out; a column whose values repeat (is this one an id?)"]),
        (counts(57, 0, 3, strata=57),
         ["data.validation: no rows left for validation: the 60 rows have 57 different labels, and one row of each "
          "stays in train; a column whose values repeat more often, or more rows"]),
        (counts(0, 9, 1, given={"train": 0, "validation": 9}),
         ["data.train: no rows left for train: none of its rows can be used; rows without findings"]),
        (counts(0, 9, 1, given={"train": 1, "validation": 9}, repeats=[("train", "validation")]),
         ["data.train: no rows left for train: its only row is in validation too, and held-out rows are never used "
          "for training; a source with rows that are not in validation"]),
        (counts(0, 0, 1, given={"train": 1}, are_documents=True),
         ["data.train: no rows left for train: its 1 document goes to the other splits; validation_size and test_size "
          "below 1 (larger ones count documents)",
          "data.train: no rows left for validation: train has 1 row; at least 3: one each to train, "
          "validate and test"]),
        (counts(1, 8, 1, learned={"train": 0, "validation": 8, "test": 1}),
         ["data.train: no rows left for train: the only row has nothing to learn; rows with an answer (here all "
          "weights are 0, or all answers are empty)"]),
        (counts(8, 1, 1), []),
    ],
    ids=["a small share", "two rows", "duplicates", "one file for two", "an id as label", "almost an id",
         "no sound row", "a row for two", "one document", "a row without an answer", "enough"],
)  # fmt: skip
def test_what_took_the_rows_is_said(found, reasons):
    told = why_empty(found, data(), lambda split: False)
    assert sorted(f"{f.where}: {f.found}; {f.expected}" for f in told) == sorted(reasons)


@pytest.mark.parametrize(("longer", "word"), [(True, "max_length"), (False, "weights are 0")])
def test_rows_that_teach_nothing_are_told_from_rows_that_are_too_long(longer, word):
    nothing = dict.fromkeys(SPLITS, 0)
    (reason, *_) = why_empty(counts(8, 1, 1, learned=nothing), data(), lambda split: longer)
    assert word in f"{reason.found} {reason.expected}"


def test_the_fingerprint_is_the_hash_of_one_json_text(workload, tiny):
    """Data that is read as before keeps the hash that it had: sweeps of earlier versions go on."""
    work = workload("encoder")
    made = prepare(work)
    kept = {name: [(row, one) for row, many in made.tokens[name] for one in many] for name in SPLITS}
    rows = {name: [[row.key, one.ids, one.targets] for row, one in kept[name]] for name in SPLITS}
    content = [work.task, work.max_length, work.data.without_places(), rows]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert data_fingerprint(work, made.base, kept)[0] == hashlib.sha256(text.encode()).hexdigest()


def test_what_is_wrong_with_model_and_rows_comes_at_once(workload, tmp_path):
    work = workload("encoder")
    bad = write_jsonl(tmp_path / "bad.jsonl", [*reviews(120), {"text": "", "label": "x"}])
    broken = replace(work, max_length=4096, data=replace(work.data, train=SourceRef(str(bad))))
    found = [(f.where, f.found) for f in prepare(broken).all_findings()]
    assert found == [
        (f"{bad}:121", "text is ''"),
        ("training.max_length", "got 4096, but the model has 128 positions"),
    ]


def test_a_length_that_nobody_asked_for_is_what_the_model_takes(workload):
    made = prepare(replace(workload("encoder"), max_length=512, max_length_is_given=False))
    assert made.base.max_length == 128
    assert not made.all_findings()


def work_on(work, task, file, **columns):
    """The same model with another task, and a file of rows in place of its data: 8 each to validate and to test."""
    rows = replace(
        work.data, train=SourceRef(str(file)), columns={**CATALOG[task].columns, **columns}, validation_size=8,
        test_size=8,
    )  # fmt: skip
    return replace(work, task=task, data=rows)


SEVERAL_LABELS = {
    "multi-label-classification": [
        {"text": f"film {n}", "labels": ["often", f"once-{n}"][: 1 + n % 2]} for n in range(60)
    ],
    "token-classification": [
        {"words": ["film", str(n)], "tags": ["B-often", f"B-once-{n}" if n % 2 else "O"]} for n in range(60)
    ],
}


@pytest.mark.parametrize("task", SEVERAL_LABELS)
def test_a_row_with_the_only_one_of_a_label_is_trained_on(workload, tmp_path, task):
    """By chance half of the rows that are held out would have a label that cannot be learned: a sweep was refused."""
    made = prepare(work_on(workload("encoder"), task, write_jsonl(tmp_path / "rows.jsonl", SEVERAL_LABELS[task])))
    assert made.all_findings() == []
    assert sum("once" in label for label in made.labels) == 30
    assert sum(map(len, made.splits.values())) == 60
    assert all(0 < len(made.splits[name]) <= 8 for name in ("validation", "test"))


def test_tags_of_another_name_have_rows_of_their_own(workload, tmp_path):
    """Their numbers are the same, and so is the hash of the data: a release was measured on tags of the other name."""

    def found(name):
        rows = [{"words": ["film", str(n)], "tags": [f"B-{name}", "O"]} for n in range(60)]
        file = write_jsonl(tmp_path / f"{name}.jsonl", rows)
        return inspect(Inspect(work_on(workload("encoder"), "token-classification", file)))

    before, after = found("PER"), found("PERSON")
    assert before.fingerprint == after.fingerprint
    lines = Path(after.tokens_dir, "validation.jsonl").read_text(encoding="utf-8").splitlines()
    assert {tag for line in lines for tag in json.loads(line)["tags"]} == set(after.labels)


LONG = {
    "text-similarity": ("bert", {"text": "film " * 30, "text_pair": "a film", "value": 1}, 60),
    "text-to-text": ("t5", {"input": "film", "output": "film " * 60}, 60),
    "causal-lm": ("llama", {"text": "film " * 60}, 0),
}
"""Task -> a model, a row of which a text is longer than its part of 32 tokens, and how many of 60 such rows are cut."""


@pytest.mark.parametrize("task", LONG)
def test_each_text_that_is_cut_is_counted_and_none_that_goes_into_blocks(family_workload, tmp_path, task):
    family, row, cut = LONG[task]
    first = next(iter(row))
    rows = [{**row, first: f"{n} {row[first]}", "value": n % 2} for n in range(60)]
    work = work_on(family_workload(family, task), task, write_jsonl(tmp_path / f"{task}.jsonl", rows))
    found = inspect(Inspect(work))
    assert found.truncated == cut
    assert sum("longer ones were cut" in note for note in found.notes) == (cut > 0)
    facts = check(Check(work)).splits
    assert sum(split.too_long for split in facts.values()) == cut


def test_lines_of_a_text_are_rows_for_a_task_that_makes_no_blocks(workload, tmp_path):
    (tmp_path / "lines.txt").write_text("".join(f"it is film {n}\n" for n in range(60)))
    work = work_on(workload("chat"), "instruct", tmp_path / "lines.txt", text_template="{text}")
    made = prepare(replace(work, data=replace(work.data, validation_size=0.1, test_size=0.1)))
    assert made.all_findings() == []
    assert {name: len(rows) for name, rows in made.splits.items()} == {"train": 49, "validation": 5, "test": 6}


@pytest.mark.parametrize(("questions", "splits"), [(30, ["validation", "test"]), (60, [])])
def test_held_out_rows_that_ask_what_a_training_row_asks_are_noted(workload, tmp_path, questions, splits):
    rows = [{"input": f"film {n % questions}", "output": f"it is {n}"} for n in range(60)]
    template = "what is {input} it is {output}"
    work = work_on(workload("chat"), "instruct", write_jsonl(tmp_path / "rows.jsonl", rows), text_template=template)
    notes = [note for note in prepare(work).notes if "the input of a training row" in note]
    assert [note.split(":")[0] for note in notes] == splits


# --- what a model is -------------------------------------------------------------------------------------


def test_code_that_comes_with_a_model_is_part_of_it_where_it_may_run(workload, tiny, tmp_path):
    folder = Path(shutil.copytree(tiny / "encoder", tmp_path / "model"))
    (folder / "parts").mkdir()

    def prepared(is_trusted):
        model = ModelRef(str(folder), trust_remote_code=is_trusted)
        return inspect(Inspect(replace(workload("encoder"), model=model, cache_dir=str(tmp_path))))

    def with_code(text):
        (folder / "modeling_own.py").write_text(text)
        (folder / "parts" / "attention.py").write_text(text)
        return prepared(False), prepared(True)

    (plain, trusted), (plain_after, trusted_after) = with_code("SCALE = 1\n"), with_code("SCALE = 2\n")
    assert plain_after.model_fingerprint == plain.model_fingerprint
    assert trusted_after.model_fingerprint != trusted.model_fingerprint
    assert trusted_after.tokens_dir != trusted.tokens_dir
    assert trusted_after.changed_model_files(trusted) == ["modeling_own.py", "parts/attention.py"]
