"""Files as people bring them: the rows that they hold, or the message that says why they hold none."""

from __future__ import annotations

import csv
import datetime
import gzip
import json
import os
import socket
from pathlib import Path

import pytest

from hpo.config.file import load_config
from hpo.paths import Home
from tests.conftest import reviews, write_jsonl
from trainers.data.formats.base import Row, names_of
from trainers.data.formats.table import READERS
from trainers.data.sources import DataProblem, marked_files, read_rows
from trainers.data.split_names import named_splits
from trainers.prepare.check import check
from trainers.protocol.catalog import DATA_SUFFIXES
from trainers.protocol.events import Finding
from trainers.protocol.requests import Check
from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef, Workload
from trainers.tasks.table import TASKS

DATA = Path(__file__).parent / "data"
AB = [{"text": "a"}, {"text": "b"}]


def read(path, documents="file", split=None):
    """Rows, findings without the path before the name, and notes."""
    unsound, notes = [], []
    rows = read_rows(SourceRef(str(path), split=split), "train", unsound, documents, notes)
    found = [f"{finding.where}: {finding.found}" for row in unsound for finding in row]
    return [row.values for row in rows], *([text.replace(f"{path.parent}/", "") for text in x] for x in (found, notes))


def refused(path, documents="file"):
    """The one finding that is all there is of a source."""
    with pytest.raises(DataProblem) as problem:
        read_rows(SourceRef(str(path)), "train", [], documents)
    [finding] = problem.value.findings
    return f"{finding.where.replace(f'{path.parent}/', '')}: {finding.found}; {finding.expected}"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def labeled(*rows):
    return [{"text": text, "label": label} for text, label in rows]


def tagged(*sentences):
    return [{"words": list(sentence), "tags": list(sentence.values())} for sentence in sentences]


SOUND = {
    # Tables
    "one-unpaired-quote.tsv": labeled(
        ("fine", "pos"), ('the 5" disk', "neg"), ('"so they said', "pos"), ("and went home", "neg"),
        ("never again", "pos"), ('it was "good', "neg"),
    ),
    "quotes-of-people.tsv": labeled(('"Great film."', "pos"), ('"Never again."', "neg"), ("so-so", "neg")),
    "quoted-by-pandas.tsv": labeled(('She said "go"', "pos"), ("plain", "neg")),
    "quoted-by-a-spreadsheet.tsv": labeled(
        ("well, fine", "pos"), ("oh, no", "neg"), ("so, so", "neg"), ("plain", "pos")
    ),
    "spreadsheet-hint.csv": labeled(("a, b", "pos")),
    "index-of-pandas.csv": [
        {"Unnamed: 0": "0", "text": "good", "label": "pos"}, {"Unnamed: 0": "1", "text": "bad", "label": "neg"},
    ],
    "empty-columns-at-the-end.csv": labeled(("good", "pos")),
    "blanks-in-the-header.csv": labeled(("good", "pos")),
    "only-a-header.csv": [],
    "UPPER.CSV": AB,
    # JSON
    "lines.json": AB,
    "pretty-objects.json": AB,
    "pandas-columns.json": AB,
    "pandas-index.json": AB,
    "pandas-split.json": AB,
    "a-list.jsonl": AB,
    "pretty-objects.jsonl": AB,
    "lines.ndjson": AB,
    "UPPER.JSONL": AB,
    # Tags
    "tabs-and-comments.conll": tagged({"New York": "B-LOC", "is": "O", "big": "O"}, {"#": "O", "1": "O"}),
    "hashtags.conll": tagged({"#sunny": "B-TAG", "day": "O"}, {"#": "O", "1": "O"}),
    "documents.conll": tagged({"Ada": "B-PER", "wrote": "O"}, {"Oslo": "B-LOC"}),
    "numbered.conll": tagged({"Ada": "B-PER", "wrote": "O"}, {"Oslo": "B-LOC"}),
    "universal-dependencies.conllu": tagged({"de": "ADP", "le": "DET", "vin": "NOUN"}),
    "a-sentence-a-line.iob": tagged({"Ada": "B-PER", "wrote": "O"}, {"Oslo": "B-LOC", "is": "O", "big": "O"}),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_rows_are_those_that_people_mean(name):
    assert read(DATA / name) == (SOUND[name], [], [])


NOTED = {
    "line-ends-in-quotes.tsv": (
        labeled(("two\nlines", "pos"), ("plain", "neg")),
        "1 row has line ends inside cells; the longest is 2 lines: line-ends-in-quotes.tsv:2",
    ),
    "line-ends-in-cells.csv": (
        labeled(
            ("Dear Sir, or Madam,\nall is well\nthanks", "pos"), ("short, \nthough", "neg"), ("plain", "pos")
        ),
        "2 rows have line ends inside cells; the longest is 3 lines: line-ends-in-cells.csv:2",
    ),
    "semicolons.csv": (
        [{"text": "Hallo, Welt", "value": "1,5"}, {"text": "a;b", "value": "2,5"}],
        "semicolons.csv is read with semicolons between its columns",
    ),
    "tabs.csv": (
        labeled(("a, b", "pos"), ('c "d', "neg")), "tabs.csv is read with tabs between its columns",
    ),
    "list-inside-an-object.json": (
        AB, "list-inside-an-object.json is an object; its rows are read from the list 'data'",
    ),
    "not-a-number.jsonl": (
        [{**row, "input": None} for row in AB],
        "not-a-number.jsonl contains NaN (2), which is read as null: a missing value",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTED)
def test_what_a_person_should_know_of_the_reading_is_a_note(name):
    rows, note = NOTED[name]
    assert read(DATA / name) == (rows, [], [note])


PARTLY = {
    "unpaired-quote-swallows-rows.csv": (
        labeled(("good", "pos"), ("bad", "neg")),
        ["unpaired-quote-swallows-rows.csv:3: a quote that is closed too late makes one cell of 5 lines that look "
         "like rows"],
    ),
    "lines-one-broken.json": (AB, ["lines-one-broken.json:2: is not JSON: Expecting value (column 1)"]),
    "a-key-twice.json": (AB[:1], ["a-key-twice.json item 2: has several values with the same name: x"]),
    "odd-lines.jsonl": (
        [{"text": "a"}, {"text": "😀"}],
        ["odd-lines.jsonl:2: has several values with the same name: text",
         "odd-lines.jsonl:3: is not JSON: Expecting value (column 14)",
         "odd-lines.jsonl:4: is str, not an object",
         "odd-lines.jsonl:5: contains half a character (a lone surrogate such as \\ud83d)"],
    ),
    "an-odd-first-line.conll": (
        tagged({"Oslo": "B-LOC"}), ["an-odd-first-line.conll:1: has 4 columns"],
    ),
    "a-word-without-a-tag.conll": (
        tagged({"Oslo": "B-LOC", "is": "O"}), ["a-word-without-a-tag.conll:2: has 1 column"],
    ),
    "blank.txt": ([], ["blank.txt:1: contains no text"]),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTLY)
def test_only_what_is_wrong_is_a_finding(name):
    rows, findings = PARTLY[name]
    assert read(DATA / name)[:2] == (rows, findings)


REFUSED = {
    "unpaired-quote-to-the-end.csv": "unpaired-quote-to-the-end.csv:3: is not CSV from here on: unexpected end of data",
    "two-columns-of-one-name.csv": "two-columns-of-one-name.csv:1: has several columns with the same name: text",
    "two-lists-inside-an-object.json":
        "two-lists-inside-an-object.json: is an object with several lists of rows: train, test",
    "lists-by-column.json": "lists-by-column.json: is one object, with words, tags; expected a list of objects",
    "one-object.json": "one-object.json: is one object, with text; expected a list of objects, or one object a line",
    "a-number.json": "a-number.json: contains int; expected a list of objects",
    "trailing-comma.json": "trailing-comma.json:3: is not JSON: Expecting value",
    "numbered-with-more.conll": "numbered-with-more.conll: has 4 columns, and the first one counts words",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_rightly_is_refused_by_name(name):
    assert refused(DATA / name).startswith(REFUSED[name])


def test_every_case_that_lies_here_is_tested():
    mine = {*SOUND, *NOTED, *PARTLY, *REFUSED, "a-novel.txt", "poems.txt"}
    formats = {".tsv", ".csv", ".json", ".jsonl", ".ndjson", ".txt", ".conll", ".conllu", ".iob"}
    assert mine <= {file.name for file in DATA.iterdir() if file.suffix.lower() in formats}


def test_every_suffix_that_the_config_knows_has_a_reader():
    assert set(READERS) == set(DATA_SUFFIXES)


def test_the_yaml_takes_suffixes_in_capitals(write_yaml, home, tmp_path):
    path = write(tmp_path / "REVIEWS.CSV", "text,label\na,b\n")
    assert load_config(write_yaml(data="REVIEWS.CSV"), Home(home)).data.train == SourceRef(str(path))


# --- texts ---------------------------------------------------------------------------------------------


def test_a_text_file_is_one_text_as_it_stands():
    [row], findings, notes = read(DATA / "a-novel.txt")
    assert row == {"text": (DATA / "a-novel.txt").read_text()}
    assert (findings, notes) == ([], [])


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_become_one_kind_and_nothing_else_changes(tmp_path, end):
    path = write(tmp_path / "a.txt", ("\ufeff" + f"{end}  one{end}{end}two ").encode())
    assert read(path) == ([{"text": "\n  one\n\ntwo "}], [], [])


def test_texts_are_paragraphs_lines_or_what_a_separator_parts():
    def texts(name, documents):
        rows = read_rows(SourceRef(str(DATA / name)), "train", [], documents)
        return [(int(row.where.rpartition(":")[2]), row.values["text"]) for row in rows]

    said = "It was a dark  night;\nthe rain fell.<|endoftext|>"
    assert texts("a-novel.txt", "paragraph") == [(1, "Chapter 1"), (3, said), (7, "It fell.")]
    assert texts("a-novel.txt", "line")[1:3] == [(3, "It was a dark  night;"), (4, "the rain fell.<|endoftext|>")]
    assert texts("poems.txt", "***") == [(3, "Roses\nare red"), (6, "Violets ")]
    assert texts("poems.txt", "\n***\n") == [(3, "Roses\nare red"), (6, "Violets ***\n")]


def test_texts_keep_the_order_of_their_files(tmp_path):
    for name in ("b.txt", "a.txt", "c/d.txt", "README.txt", ".hidden.txt"):
        write(tmp_path / name, name)
    assert [row["text"] for row in read(tmp_path)[0]] == ["a.txt", "b.txt", "c/d.txt"]


def test_a_table_that_is_named_like_a_licence_is_data(tmp_path):
    write(tmp_path / "license_plates.jsonl", '{"text": "b"}\n')
    write(tmp_path / "notices-2024.csv", "text\na\n")
    for name in ("LICENSE-2.0.txt", "readme.json"):
        write(tmp_path / name, "{}")
    assert read(tmp_path)[0] == [{"text": "b"}, {"text": "a"}]


# --- bytes ---------------------------------------------------------------------------------------------

TABLE = "text\tlabel\r\nnaïve\tpos\r\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, encoding):
    path = write(tmp_path / "unicode-text.tsv", TABLE.encode(encoding))
    assert read(path) == (labeled(("naïve", "pos")), [], [])
    assert marked_files(SourceRef(str(path))) == [str(path)]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (TABLE.encode("utf-16-le"), ":1: is not UTF-8 text: it looks like UTF-16 without a byte order mark"),
        (TABLE.encode("cp1252"), ":2: is not UTF-8 text; save it as UTF-8"),
        ((TABLE * 2).encode("utf-16")[:-1], ":4: is not UTF-16 text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", ": is a pointer of Git LFS"),
    ],
)
def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path, content, problem):
    assert refused(write(tmp_path / "a.tsv", content)).startswith(f"a.tsv{problem}")


def test_old_line_ends_and_nul_bytes_of_a_table(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\rgood,pos\rb\0d,neg\r")
    assert read(path)[:2] == (labeled(("good", "pos")), ["a.csv:3: contains a NUL character"])


def test_a_cell_may_be_of_any_length_and_other_code_keeps_its_limit(tmp_path):
    limit = csv.field_size_limit()
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        path = write(tmp_path / f"a{suffix}", f"text{delimiter}label\n{'x ' * 100_000}{delimiter}pos\n")
        assert read(path) == (labeled(("x " * 100_000, "pos")), [], [])
    assert csv.field_size_limit() == limit


def test_text_that_looks_like_a_row_swallows_nothing(tmp_path):
    """A mail with a comma in its first line, in a table of two columns."""
    rows = labeled(*((f"Dear friend {n}, hello\nbye", "pos" if n % 2 else "neg") for n in range(9)))
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)
    assert read(path)[:2] == (rows, [])


@pytest.mark.parametrize(
    ("value", "found"),
    [("9" * 5000, "a number of more than 4,300 digits"), ("[" * 100_000, "lists or objects that are nested"),
     ("[" * 200 + "]" * 200, "more than 100 deep")],
)  # fmt: skip
def test_json_that_no_program_can_use_is_a_finding(tmp_path, value, found):
    rows, [finding], _ = read(write(tmp_path / "a.jsonl", f'{{"n": {"9" * 400}}}\n{{"n": {value}}}\n'))
    assert (len(rows), found in finding, finding[:9]) == (1, True, "a.jsonl:2")


def test_a_number_of_hundreds_of_digits_is_no_value_to_learn(tmp_path):
    row = Row("a:1", {"text": "a", "value": 10**400})
    found = TASKS["regression"].check(row, {"text": "text", "value": "value"})
    assert isinstance(found, Finding)
    assert found.found.startswith("value is 1000")
    assert len(found.found) < 200


def test_names_in_messages_are_bounded():
    row = Row("a:1", {f"column {n}": n for n in range(3000)} | {"x" * 5000: 1})
    assert names_of(row) == ", ".join(f"column {n}" for n in range(10)) + " and 2,991 more"
    assert len(names_of(Row("a:1", {"x" * 5000: 1}))) < 110


# --- what is no file -----------------------------------------------------------------------------------


def test_what_is_no_ordinary_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "dangling.csv").symlink_to("nowhere.csv")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "inner/a.jsonl/b.md", "")
    write(tmp_path / "inner/c.md", "")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s.csv"))
        assert refused(tmp_path / "s.csv").startswith("s.csv: is a socket, not a file")
    assert refused(tmp_path / "pipe.jsonl").startswith("pipe.jsonl: is a pipe, not a file")
    assert refused(Path("/dev/zero")).startswith("zero: is a device, not a file")
    assert refused(tmp_path / "dangling.csv") == "dangling.csv: is a link to nowhere.csv, which does not exist; "
    assert "Too many levels of symbolic links" in refused(tmp_path / "loop.csv")
    assert refused(tmp_path / "missing.csv") == "missing.csv: does not exist; "
    assert refused(tmp_path / "inner").startswith("inner: contains no data file but b.md, c.md; files of .jsonl")
    assert refused(tmp_path / "empty").startswith("empty: contains no data file; files of .jsonl")
    assert "File name too long" in refused(tmp_path / f"{'x' * 300}.csv")
    assert "null byte" in refused(Path(f"{tmp_path}/a\0b.csv"))
    assert refused(tmp_path / "**x.csv").startswith("**x.csv: contains no data file")


def test_a_folder_hides_no_file_that_cannot_be_read(tmp_path):
    write(tmp_path / "a.jsonl", '{"text": "a"}')
    (tmp_path / "b.jsonl").symlink_to("nowhere")
    assert refused(tmp_path) == f"{tmp_path.name}/b.jsonl: is a link to nowhere, which does not exist; "
    (tmp_path / "b.jsonl").unlink()
    write(tmp_path / "c.jsonl.gz", gzip.compress(b'{"text": "c"}'))
    assert refused(tmp_path) == f"{tmp_path.name}/c.jsonl.gz: is compressed; unpack it first: c.jsonl"


def test_a_loop_of_folders_ends(tmp_path):
    write(tmp_path / "a/x.jsonl", '{"text": "a"}')
    (tmp_path / "a/again").symlink_to(tmp_path, target_is_directory=True)
    assert read(tmp_path)[0] == AB[:1]


def test_a_file_that_may_not_be_read_is_said_so(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", b"PAR1")

    def denied(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert refused(path) == "a.parquet: cannot be opened: Permission denied; "


# --- Parquet and Arrow ---------------------------------------------------------------------------------


@pytest.fixture
def review_set():
    import datasets

    classes = datasets.ClassLabel(names=["negative", "positive"])
    features = datasets.Features({
        "text": datasets.Value("string"), "label": classes, "labels": datasets.List(classes),
        "nested": {"inner": [{"kind": classes}]},
    })  # fmt: skip
    rows = [
        {"text": "a", "label": 1, "labels": [0, 1], "nested": {"inner": [{"kind": 0}]}},
        {"text": "b", "label": -1, "labels": [], "nested": {"inner": []}},
    ]
    return datasets.Dataset.from_list(rows, features=features)


REVIEWS = [
    {"text": "a", "label": "positive", "labels": ["negative", "positive"], "nested": {"inner": [{"kind": "negative"}]}},
    {"text": "b", "label": None, "labels": [], "nested": {"inner": []}},
]


def test_classes_of_parquet_keep_their_names(tmp_path, review_set):
    review_set.to_parquet(tmp_path / "reviews.parquet")
    assert read(tmp_path / "reviews.parquet") == (REVIEWS, [], [])


def test_a_folder_that_datasets_saved_is_read_with_its_classes(tmp_path, review_set):
    review_set.save_to_disk(tmp_path / "saved")
    write(tmp_path / "saved/cache-0123.arrow", b"of an earlier map")
    assert read(tmp_path / "saved") == (REVIEWS, [], [])


def test_saved_splits_are_splits(tmp_path, review_set):
    import datasets

    saved = datasets.DatasetDict(dict.fromkeys(("train", "test", "unsupervised"), review_set))
    saved.save_to_disk(tmp_path / "saved")
    data, [note] = named_splits(data_of(tmp_path / "saved"))
    assert {name: len(source.files) for name, source in data.sources().items()} == {"train": 1, "test": 1}
    assert "unsupervised/data-00000-of-00001.arrow is left out" in note
    assert [row.values for row in read_rows(data.train, "train", [])] == REVIEWS


def test_categories_of_pandas_keep_their_names(tmp_path):
    import pandas

    frame = pandas.DataFrame({"label": pandas.Categorical(["pos", "neg", None, "pos"])})
    frame.to_parquet(tmp_path / "a.parquet")
    assert [row["label"] for row in read(tmp_path / "a.parquet")[0]] == ["pos", "neg", None, "pos"]


def test_a_number_that_is_no_class_is_a_finding(tmp_path):
    import pyarrow
    import pyarrow.parquet

    said = {"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}}
    schema = pyarrow.schema([("label", pyarrow.int64())], {"huggingface": json.dumps(said)})
    pyarrow.parquet.write_table(pyarrow.table({"label": [1, 7]}, schema), tmp_path / "a.parquet")
    rows, findings, _ = read(tmp_path / "a.parquet")
    assert (rows, findings) == (
        [{"label": "b"}], ["a.parquet row 2: label is 7, but there are 2 classes, counted from 0"]
    )  # fmt: skip


def test_names_in_the_place_of_declared_numbers_are_names(tmp_path):
    """pyarrow keeps the declaration of a column that `set_column` replaces."""
    import pyarrow
    import pyarrow.parquet

    said = {"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}}
    schema = pyarrow.schema([("label", pyarrow.string())], {"huggingface": json.dumps(said)})
    pyarrow.parquet.write_table(pyarrow.table({"label": ["b", None]}, schema), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ([{"label": "b"}, {"label": None}], [], [])


def test_json_inside_parquet_is_what_it_says(tmp_path):
    """`datasets` stores turns that have different keys so."""
    import datasets

    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]
    features = datasets.Features({"messages": datasets.List(datasets.Json())})
    datasets.Dataset.from_list([{"messages": turns}], features=features).to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ([{"messages": turns}], [], [])


def test_values_out_of_range_of_unused_columns_do_no_harm(tmp_path):
    import pyarrow
    import pyarrow.parquet

    far = pyarrow.array([10**17, 0])
    table = pyarrow.table({
        "text": ["a", "b"], "when": far.view(pyarrow.timestamp("ms")), "took": far.view(pyarrow.duration("ms")),
        "struct": pyarrow.StructArray.from_arrays([far.view(pyarrow.timestamp("ms"))], ["t"]),
    })  # fmt: skip
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    rows, findings, notes = read(tmp_path / "a.parquet")
    assert (rows[0], findings) == ({"text": "a", "when": None, "took": None, "struct": None}, [])
    assert rows[1]["when"] == datetime.datetime(1970, 1, 1)
    assert notes[0] == "a.parquet: 1 value of when is out of range of timestamp[ms], and counts as missing"
    assert len(notes) == 3


def test_text_of_parquet_that_is_no_text_is_a_finding(tmp_path):
    import pyarrow
    import pyarrow.parquet

    ends = pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0")
    broken = pyarrow.Array.from_buffers(pyarrow.string(), 2, [None, ends, pyarrow.py_buffer(b"\xffa")])
    pyarrow.parquet.write_table(pyarrow.table({"text": broken}), tmp_path / "a.parquet")
    rows, [finding], _ = read(tmp_path / "a.parquet")
    assert (rows, finding) == (AB[:1], "a.parquet row 1: text is not UTF-8 text: invalid start byte")


def test_what_is_wrong_with_a_parquet_file_is_said(tmp_path, review_set):
    review_set.to_parquet(tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    wrong = {
        "empty": (b"", "is empty; at least one row"),
        "a csv": (b"text,label\n", "is not Parquet: it does not begin with PAR1"),
        "cut": (whole[:-10], "is incomplete: the end is missing after"),
        "scratched": (whole[:-60] + b"x" * 40 + whole[-20:], "cannot be read as Parquet"),
    }
    for name, (content, found) in wrong.items():
        assert found in refused(write(tmp_path / f"{name}.parquet", content))
    assert "cannot be read as Arrow" in refused(write(tmp_path / "a.arrow", b"no arrow at all"))
    assert "is empty; at least one row" in refused(write(tmp_path / "empty.arrow", b""))


def test_a_slice_of_parquet_that_ends_early_reads_no_further(tmp_path, monkeypatch):
    import pyarrow
    import pyarrow.parquet

    from trainers.data.formats import columnar

    pyarrow.parquet.write_table(pyarrow.table({"n": range(100)}), tmp_path / "a.parquet", row_group_size=10)
    monkeypatch.setattr(columnar, "BATCH", 10)
    read_values, seen = columnar._values, []
    monkeypatch.setattr(columnar, "_values", lambda *given: seen.append(1) or read_values(*given))
    assert [row["n"] for row in read(tmp_path / "a.parquet", split="train[5:12]")[0]] == list(range(5, 12))
    assert len(seen) == 2


# --- splits --------------------------------------------------------------------------------------------


def data_of(train, **held_out):
    sources = {name: SourceRef(str(path)) for name, path in {"train": train, **held_out}.items()}
    columns = {"text": "text", "label": "label"}
    return DataRef(sources["train"], sources.get("validation"), sources.get("test"), columns, 0.1, 0.1, 0)


def folder_of(tmp_path, files):
    for name in files:
        write(tmp_path / name, "text,label\na,b\n")


SPLIT_FOLDERS = {
    "train.csv validation.csv test.csv README.md": {
        "train": ["train.csv"], "validation": ["validation.csv"], "test": ["test.csv"],
    },
    "train.csv dev.csv": {"train": ["train.csv"], "validation": ["dev.csv"]},
    "train.csv valid.csv": {"train": ["train.csv"], "validation": ["valid.csv"]},
    "train.csv eval.csv": {"train": ["train.csv"], "validation": ["eval.csv"]},
    "train.csv val.csv eval.csv": {"train": ["train.csv"], "validation": ["val.csv"], "test": ["eval.csv"]},
    "Training.csv TEST.CSV": {"train": ["Training.csv"], "test": ["TEST.CSV"]},
    "my-train_v2.csv my-test_v2.csv": {"train": ["my-train_v2.csv"], "test": ["my-test_v2.csv"]},
    "data/train/a.csv data/train/b.csv data/test/a.csv": {
        "train": ["data/train/a.csv", "data/train/b.csv"], "test": ["data/test/a.csv"],
    },
    "train-00000-of-00002.csv train-00001-of-00002.csv test-00000-of-00001.csv unsupervised-00000-of-00001.csv": {
        "train": ["train-00000-of-00002.csv", "train-00001-of-00002.csv"], "test": ["test-00000-of-00001.csv"],
    },
}  # fmt: skip


@pytest.mark.parametrize("files", SPLIT_FOLDERS)
def test_files_that_carry_names_of_splits_are_splits(tmp_path, files):
    folder_of(tmp_path, files.split())
    data, [note] = named_splits(data_of(tmp_path))
    found = {
        name: [str(Path(file).relative_to(tmp_path)) for file in source.files]
        for name, source in data.sources().items()
    }
    assert found == SPLIT_FOLDERS[files]
    assert note.startswith(f"data: {tmp_path} has files of several splits: ")
    rows = read_rows(data.train, "train", [])
    assert len(rows) == len(found["train"])


@pytest.mark.parametrize(
    "files",
    ["a.csv b.csv", "train1.csv train2.csv", "part-00000-of-00002.csv part-00001-of-00002.csv", "test.csv",
     "latest.csv contest.csv", "The*Test*of*Time.txt Moby*Dick.txt"],
)  # fmt: skip
def test_files_of_one_split_stay_together(tmp_path, files):
    folder_of(tmp_path, [name.replace("*", " ") for name in files.split()])
    assert named_splits(data_of(tmp_path)) == (data_of(tmp_path), [])


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ("train.csv test.csv more.csv", "more.csv is named after no split, while other files are"),
        ("train.csv holdout.csv", "holdout.csv is named after no split, while other files are"),
        ("train.csv train-test.csv", "train-test.csv is named after several splits"),
        ("train.csv val.csv test.csv eval.csv", "eval.csv is named eval, beside validation and test"),
        ("train_sft-00000-of-00001.csv train_gen-00000-of-00001.csv test_sft-00000-of-00001.csv",
         "has several splits for train: train_gen, train_sft"),
    ],
)  # fmt: skip
def test_names_that_leave_it_open_are_refused(tmp_path, files, found):
    folder_of(tmp_path, files.split())
    with pytest.raises(DataProblem) as problem:
        named_splits(data_of(tmp_path))
    assert [(finding.where, finding.found) for finding in problem.value.findings] == [(str(tmp_path), found)]


def test_a_pattern_and_a_file_beside_others(tmp_path):
    folder_of(tmp_path, ["train.csv", "test.csv", "validation.csv"])
    data, _ = named_splits(data_of(tmp_path / "*.csv"))
    assert data.train.files == [str(tmp_path / "train.csv")]
    assert named_splits(data_of(tmp_path / "t*n.csv")) == (data_of(tmp_path / "t*n.csv"), [])
    assert named_splits(data_of(tmp_path / "train.csv")) == (data_of(tmp_path / "train.csv"), [])


def test_what_the_yaml_names_itself_stays(tmp_path):
    folder_of(tmp_path, ["data/train.csv", "data/test.csv", "held-out.csv"])
    data, [_] = named_splits(data_of(tmp_path / "data", test=tmp_path / "held-out.csv"))
    assert data.train.files == [str(tmp_path / "data/train.csv")]
    assert (data.validation, data.test) == (None, SourceRef(str(tmp_path / "held-out.csv")))
    with pytest.raises(DataProblem, match="none is validation"):
        named_splits(data_of(tmp_path / "data", validation=tmp_path / "data"))


def test_a_folder_beside_a_hub_id_gives_its_own_files(tmp_path):
    folder_of(tmp_path, ["train.csv", "test.csv", "validation.csv"])
    data, [_] = named_splits(data_of("org/reviews", validation=tmp_path))
    assert data.validation.files == [str(tmp_path / "validation.csv")]
    assert (data.train, data.test) == (SourceRef("org/reviews"), None)


def test_slices_are_those_of_the_split_that_they_name(tmp_path):
    folder_of(tmp_path, ["train.csv", "test.csv"])
    slices = {"train": "train[:80%]", "validation": "train[80%:]"}
    data, _ = named_splits(
        data_of(tmp_path).with_sources({n: SourceRef(str(tmp_path), split=s) for n, s in slices.items()})
    )
    assert {name: (source.files, source.split) for name, source in data.sources().items()} == {
        "train": ([str(tmp_path / "train.csv")], "train[:80%]"),
        "validation": ([str(tmp_path / "train.csv")], "train[80%:]"),
        "test": ([str(tmp_path / "test.csv")], None),
    }


def test_the_unlabeled_test_set_of_a_contest_is_left_out(tmp_path):
    folder_of(tmp_path, ["train.csv"])
    write(tmp_path / "test.csv", "text\na\n")
    data, notes = named_splits(data_of(tmp_path))
    assert list(data.sources()) == ["train"]
    assert notes[1].endswith("have no values in label, so they are left out; test is cut from train")


def test_no_test_row_is_trained_on(tmp_path, tiny):
    """The whole way of `hpo check`: a folder with three files, no key but `train`."""
    for name, seed, count in (("train", 0, 40), ("validation", 1, 12), ("test", 2, 9)):
        rows = [{**row, "text": f"{name} {row['text']}"} for row in reviews(count, seed)]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    work = Workload("text-classification", ModelRef(str(tiny / "encoder")), data_of(tmp_path), 64, "fp32", "")
    checked = check(Check(work))
    assert not checked.findings
    assert {name: facts.rows + facts.duplicates for name, facts in checked.splits.items()} == {
        "train": 40, "validation": 12, "test": 9,
    }  # fmt: skip
    assert any("has files of several splits: train.jsonl is train" in note for note in checked.notes)
