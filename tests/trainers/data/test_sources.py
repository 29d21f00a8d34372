"""Rows from every format, and the place of whatever does not parse."""

from __future__ import annotations

import json

import pytest

from trainers.data.sources import DataProblem, marked_files, read_rows
from trainers.protocol.slices import parse_slice
from trainers.protocol.trial_spec import SourceRef

ROWS = [{"text": "one, two", "label": "a"}, {"text": 'a "quoted"\nline', "label": "b"}]


def write(path, rows):
    import csv

    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    unsound = []
    rows = read_rows(SourceRef(str(write(tmp_path / f"d{suffix}", ROWS))), "train", unsound)
    assert [r.values for r in rows] == ROWS
    assert not unsound


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS[0]).encode())
    assert read_rows(SourceRef(str(path)), "train", [])[0].values == ROWS[0]
    write(tmp_path / "e.jsonl", ROWS)
    assert marked_files(SourceRef(str(tmp_path))) == marked_files(SourceRef(str(path))) == [str(path)]


def test_every_bad_line_is_found_with_its_number(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "a"}\nnot json\n\n[1]\n{"text": "b"}\n')
    unsound = []
    rows = read_rows(SourceRef(str(path)), "train", unsound)
    assert [f.where for row in unsound for f in row] == [f"{path}:2", f"{path}:4"]
    assert [r.where for r in rows] == [f"{path}:1", f"{path}:5"]


def test_a_csv_row_with_a_column_too_many_is_found_after_a_quoted_line_break(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text('text,label\n"two\nlines",a\nx,b,c\n')
    unsound = []
    read_rows(SourceRef(str(path)), "train", unsound)
    assert [f.where for row in unsound for f in row] == [f"{path}:4"]


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [("d.json", b'{"a": 1}', "d.json"), ("d.json", b"[1,\n2", "d.json:2"), ("d.json", b"[" * 2000, "d.json"),
     ("d.jsonl", b'{"a": "b"}\n{"a": "\xff"}', "d.jsonl:2"), ("d.txt", "naïve".encode("utf-16-le"), "d.txt:1"),
     ("d.csv", b'text,label\na,b\nc,"d" e\nf,g\n', "d.csv:3"), ("d.parquet", b"no parquet", "d.parquet")],
)  # fmt: skip
def test_a_file_that_cannot_be_read_at_all_is_one_problem(tmp_path, name, content, where):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataProblem) as problem:
        read_rows(SourceRef(str(tmp_path / name)), "train", [])
    assert [f.where for f in problem.value.findings] == [str(tmp_path / where)]


def test_a_row_after_an_empty_line_of_csv_keeps_its_line(tmp_path):
    (tmp_path / "d.csv").write_text("text,label\n\na,b,c\n\nd,e\n")
    unsound = []
    rows = read_rows(SourceRef(str(tmp_path / "d.csv")), "train", unsound)
    assert [row.where for row in rows] == [f"{tmp_path}/d.csv:5"]
    assert [f.where for row in unsound for f in row] == [f"{tmp_path}/d.csv:3"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"a": "\\ud83d"}', "contains half a character"),
        ("[" * 2000, "cannot be read as JSON"),
        (f'{{"a": {"9" * 5000}}}', "cannot be read as JSON"),
    ],
    ids=["surrogate", "nested", "digits"],
)
def test_json_that_no_trial_can_use_is_a_finding(tmp_path, line, found):
    (tmp_path / "d.jsonl").write_text(f'{{"a": "\\ud83d\\ude00"}}\n{line}\n')
    unsound = []
    assert len(read_rows(SourceRef(str(tmp_path / "d.jsonl")), "train", unsound)) == 1
    ((finding,),) = unsound
    assert finding.where == f"{tmp_path}/d.jsonl:2"
    assert found in finding.found


# --- slices and hub ids --------------------------------------------------------------------------------


def test_a_slice_counts_rows_as_they_stand_over_all_files(tmp_path):
    """A line that does not parse is one of them, and no finding outside the slice; empty lines are none."""
    (tmp_path / "a.jsonl").write_text('{"n": 0}\n\nbroken\n{"n": 2}\n')
    write(tmp_path / "b.jsonl", [{"n": 3}, {"n": 4}])

    def read(split):
        unsound = []
        rows = read_rows(SourceRef(str(tmp_path), split=split), "train", unsound)
        return [row.values["n"] for row in rows], len(unsound)

    assert read(None) == read("train") == ([0, 2, 3, 4], 1)
    assert read("train[:1]") == ([0], 0)
    assert read("train[1:4]") == ([2, 3], 1)
    assert read("train[-3:]") == ([2, 3, 4], 0)
    assert read("train[40%:]") == ([2, 3, 4], 0)
    assert read("train[5:]") == ([], 0)


def test_a_sentence_of_conll_is_one_row_of_a_slice(tmp_path):
    (tmp_path / "a.conll").write_text("Ada B-PER\nwrote\nso\n\nOslo B-LOC\n")
    unsound = []
    rows = read_rows(SourceRef(str(tmp_path / "a.conll"), split="train[1:]"), "train", unsound)
    assert ([row.values["words"] for row in rows], unsound) == ([["Oslo"]], [])


def test_nothing_is_read_after_the_end_of_a_slice():
    rows = iter(range(10))
    assert list(parse_slice("train[2:4]").take(rows)) == [2, 3]
    assert next(rows) == 4


@pytest.mark.parametrize(
    ("source", "arguments"),
    [
        (SourceRef("org/data"), {"name": None, "revision": None, "split": "validation"}),
        (
            SourceRef("org/data", "en", "v2", "train[:10%]+test"),
            {"name": "en", "revision": "v2", "split": "train[:10%]+test"},
        ),
    ],
)
def test_a_hub_id_is_asked_for_with_its_config_revision_and_split(monkeypatch, source, arguments):
    import datasets

    asked = []

    def load_dataset(path, **kwargs):
        asked.append((path, kwargs))
        return datasets.Dataset.from_list([{"text": "a"}, {"text": "b"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = read_rows(source, "validation", [])
    assert asked == [("org/data", arguments)]
    assert [row.where for row in rows] == [f"org/data[{arguments['split']}] row {n}" for n in (1, 2)]
    assert [row.values for row in rows] == [{"text": "a"}, {"text": "b"}]


def test_a_data_set_is_read_as_datasets_reads_it(tmp_path, monkeypatch):
    """A folder beside the current one stands for a hub id: `load_dataset` takes both."""
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "reviews").mkdir()
    rows = [{"text": f"text {n}"} for n in range(37)]
    write(tmp_path / "reviews" / "train.jsonl", rows)
    read = read_rows(SourceRef("reviews", split="train[10%:30%]"), "validation", [])
    sliced = read_rows(SourceRef(str(tmp_path / "reviews"), split="train[10%:30%]"), "validation", [])
    assert [row.values for row in read] == [row.values for row in sliced] == rows[4:11]


def test_a_hub_id_that_cannot_be_had_is_one_problem():
    with pytest.raises(DataProblem) as problem:
        read_rows(SourceRef("org/nothing", "en"), "test", [])
    (finding,) = problem.value.findings
    assert finding.where == "data.test"
    assert finding.found.startswith("org/nothing: ")
