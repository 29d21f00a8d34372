"""Rows from every format, and the place of whatever does not parse."""

from __future__ import annotations

import json

import pytest

from trainers.sources import MAX_FINDINGS, DataProblem, read_rows

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
    findings = []
    rows = read_rows(str(write(tmp_path / f"d{suffix}", ROWS)), "train", findings)
    assert [r.values for r in rows] == ROWS
    assert not findings


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS[0]).encode())
    assert read_rows(str(path), "train", [])[0].values == ROWS[0]


def test_every_bad_line_is_found_with_its_number(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "a"}\nnot json\n\n[1]\n{"text": "b"}\n')
    findings = []
    rows = read_rows(str(path), "train", findings)
    assert [f.where for f in findings] == [f"{path}:2", f"{path}:4"]
    assert [r.where for r in rows] == [f"{path}:1", f"{path}:5"]


def test_a_csv_row_with_a_column_too_many_is_found_after_a_quoted_line_break(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text('text,label\n"two\nlines",a\nx,b,c\n')
    findings = []
    read_rows(str(path), "train", findings)
    assert [f.where for f in findings] == [f"{path}:4"]


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [("d.json", b'{"a": 1}', "d.json"), ("d.json", b"[1,\n2", "d.json:2"), ("d.jsonl", b'{"a": "\xff"}', "d.jsonl"),
     ("d.parquet", b"no parquet", "d.parquet")],
)  # fmt: skip
def test_a_file_that_cannot_be_read_at_all_is_one_problem(tmp_path, name, content, where):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataProblem) as problem:
        read_rows(str(tmp_path / name), "train", [])
    assert [f.where for f in problem.value.findings] == [str(tmp_path / where)]


def test_many_findings_are_counted_not_listed():
    from trainers.spec import Finding

    problem = DataProblem([Finding(f"f:{i}", "is bad") for i in range(MAX_FINDINGS + 7)])
    assert len(problem.findings) == MAX_FINDINGS + 1
    assert "7 more" in problem.findings[-1].found
