"""`hpo check`: every problem with its line, what the data is, and what a trial will see."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer, normalizers

from hpo.cli.main import cli
from hpo.commands.check import check_sweep
from hpo.config.file import load_config
from hpo.errors import ConfigError
from hpo.paths import Home
from hpo.study.revision import open_revision
from tests.conftest import reviews, write_jsonl
from tests.trainers.data.test_sources import write
from trainers.data.sources import DataProblem, read_rows
from trainers.data.tokens import Encoded
from trainers.prepare.check import _tokens_over, check
from trainers.protocol.requests import Check
from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef, Workload
from trainers.tasks.table import TASKS


@pytest.fixture
def look(tiny):
    def at(task, model, train, validation=None, columns=None, max_length=16, test=None):
        from trainers.protocol.catalog import TASKS

        names = {**TASKS[task].columns, **(columns or {})}
        files = [SourceRef(str(file)) if isinstance(file, (str, Path)) else file for file in (train, validation, test)]
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
    file.write_text("-DOCSTART- O\n\nAda NNP B-PER\nwrote VBD O\n\nOslo NNP\nis VBZ O\n\nRome NNP B-LOC\n")
    unsound = []
    rows = read_rows(SourceRef(str(file)), "train", unsound)
    assert [(row.where, row.values["words"], row.values["tags"]) for row in rows] == [
        (f"{file}:3", ["Ada", "wrote"], ["B-PER", "O"]),
        (f"{file}:9", ["Rome"], ["B-LOC"]),
    ]
    assert [[(f.where, f.found) for f in sentence] for sentence in unsound] == [[(f"{file}:6", "has 2 columns")]]


def test_folders_and_patterns_of_files_are_read_in_order_of_their_names(tmp_path):
    for name in ("b.txt", "a.txt", "ignored.md"):
        (tmp_path / name).write_text(f"first of {name}\n\nsecond of {name}\n")
    wanted = [f"{n} of {name}" for name in ("a.txt", "b.txt") for n in ("first", "second")]
    assert [row.values["text"] for row in read_rows(SourceRef(str(tmp_path)), "train", [], "line")] == wanted
    assert [row.values["text"] for row in read_rows(SourceRef(str(tmp_path / "*.txt")), "train", [], "line")] == wanted


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
    assert [finding.where for finding in checked.findings] == ["data.train", "data.validation_size"]


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


@pytest.mark.usefixtures("requests_here")
def test_findings_end_the_command_as_a_bad_config(write_yaml, home, tmp_path):
    rows = write_jsonl(tmp_path / "r.jsonl", [*reviews(80), {"text": ""}])
    checked = check_sweep(write_yaml(data={"train": str(rows)}), Home(home))
    assert [finding["where"] for finding in checked["findings"]] == [f"{rows}:81"]
    done = CliRunner().invoke(cli, ["--home", str(home), "check", str(tmp_path / "sweep.yaml")])
    assert isinstance(done.exception, ConfigError)
    assert done.exception.exit_code == 2


# --- what the sweep did before ---------------------------------------------------------------------------


@pytest.fixture
def begun(write_yaml, home, database):
    """Begins the sweep of the file, on the data and model that `changes` make of those that there are."""

    def begin(**changes):
        home.mkdir()
        database.rename(home / "studies.db")
        config = load_config(write_yaml(), Home(home))
        prepared = check(Check(config.workload(Home(home)))).prepared
        study = open_revision(config, lambda _: "", Home(home).studies_db)[0]
        study.update_state(data=dataclasses.replace(prepared, **changes))
        study.close()

    return begin


def found_by(file, home):
    return [f"{f['where'].rpartition(': ')[2]}: {f['found']}" for f in check_sweep(file, Home(home))["findings"]]


@pytest.mark.usefixtures("requests_here")
def test_a_file_that_was_not_edited_continues_its_sweep(begun, write_yaml, home):
    begun()
    assert found_by(write_yaml(budget={"hours": 1}), home) == []


@pytest.mark.usefixtures("requests_here")
def test_all_that_the_sweep_would_refuse_is_found_at_once_and_nothing_is_written(begun, write_yaml, home):
    begun(fingerprint="0" * 64, model_fingerprint="0" * 64, model_hashes={"config.json": "0" * 64})
    before = sorted(home.rglob("*"))
    training = {"max_examples": 100_000, "eval_steps": 1, "max_length": 64, "learning_rate": 1e-2}
    found = found_by(write_yaml(seed=7, training=training, search_strategy={"warm_start": ["gone"]}), home)
    assert "search_strategy.warm_start: no other sweep 'gone'" in found
    assert "seed: was 0 when sweep 'tiny-encoder' began, now 7" in found
    assert "training.eval_steps: makes 6,250 evaluations of a trial" in found
    assert "data: the data of sweep 'tiny-encoder' has changed since it began" in found
    (model,) = [line for line in found if line.startswith("model: ")]
    assert "has changed since it began (other content in config.json, " in model
    assert sorted(home.rglob("*")) == before


@pytest.mark.usefixtures("requests_here")
def test_an_edit_is_found_beside_data_that_cannot_be_read(begun, write_yaml, home, tmp_path):
    begun()
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ConfigError) as refused:
        check_sweep(write_yaml(seed=7, data={"train": "empty.jsonl"}), Home(home), clean_dir=tmp_path / "clean")
    found = "\n".join(map(str, refused.value.problems))
    assert "seed: was 0" in found
    assert "empty.jsonl: is empty" in found
    assert not (tmp_path / "clean").exists()


# --- broken copies of each format ----------------------------------------------------------------------

UNPARSABLE = {
    "text-classification": {
        "a.jsonl": ('{"text": "a film", "label": "x"}\n{"text": "a', "a.jsonl:2: is not JSON"),
        "a.json": ('[{"text": "a film",\n "label": x}]', "a.json:2: is not JSON"),
        "a.csv": ('text,label\na film,x\n"a "film",x\n', "a.csv:3: is not CSV from here on"),
        "a.parquet": ("PAR1 but no more", "a.parquet: is incomplete: the end is missing"),
    },
    "causal-lm": {"a.txt": (b"a film\nna\xefve\n", "a.txt:2: is not UTF-8 text")},
    "token-classification": {"a.conll": ("Ada B-PER\nwrote\n", "a.conll:2: has 1 column; expected 2")},
}
FIELDS = {  # rows in which one is missing, empty, and of the wrong kind: what is said of each
    "text-classification": (
        [
            {"text": "a film", "label": "x"},
            {"text": "a plot"},
            {"text": " ", "label": "x"},
            {"text": "a scene", "label": ""},
        ],
        {2: "label", 3: "text is ' '; expected text", 4: "label is ''; expected a label"},
    ),
    "chat": (
        [
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            {"messages": [{"role": "user", "content": "a"}, {"role": "bot", "content": "b"}]},
            {"messages": [{"role": "user", "content": "a"}]},
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]},
            {"messages": []},
        ],
        {
            2: "turn 2 has the role 'bot', expected one of system, user, assistant",
            3: "the last turn is the user's, not the assistant's",
            4: "turn 2 is empty",
            5: "messages is not a list of turns",
        },
    ),
}  # fmt: skip


@pytest.fixture
def told(look, tmp_path):
    """What is found in a training file, without the folder."""

    def told(task, file):
        try:
            findings = look(task, "chat" if task in ("chat", "causal-lm") else "encoder", file).findings
        except DataProblem as problem:
            findings = problem.findings
        return [f"{f.where}: {f.found}; {f.expected}".replace(f"{tmp_path}/", "") for f in findings]

    return told


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, files in UNPARSABLE.items() for name in files])
def test_what_does_not_parse_is_named_by_its_line(told, tmp_path, task, name):
    content, problem = UNPARSABLE[task][name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert told(task, tmp_path / name)[0].startswith(problem)


@pytest.mark.parametrize(
    ("task", "suffix", "place"),
    [
        ("text-classification", ".jsonl", ":{}"),
        ("text-classification", ".json", " item {}"),
        ("text-classification", ".csv", ":{}"),
        ("text-classification", ".tsv", ":{}"),
        ("text-classification", ".parquet", " row {}"),
        ("chat", ".jsonl", ":{}"),
        ("chat", ".json", " item {}"),
        ("chat", ".parquet", " row {}"),
    ],
)
def test_a_field_that_is_missing_or_empty_is_named_by_its_line(told, tmp_path, task, suffix, place):
    rows, problems = FIELDS[task]
    file = write(tmp_path / f"a{suffix}", rows)
    lines = told(task, file)
    header = suffix in (".csv", ".tsv")
    for number, problem in problems.items():
        where = f"a{suffix}{place.format(number + header)}: "
        assert any(line.startswith(where) and problem in line for line in lines), (where, lines)


def test_fields_of_conll_and_txt_are_named_by_their_lines(told, tmp_path):
    (tmp_path / "a.conll").write_text("Ada B-PER\n\nOslo LOC\n")
    assert told("token-classification", tmp_path / "a.conll")[0].startswith("a.conll:3: has the tag 'LOC'; expected O")
    (tmp_path / "a.txt").write_text("a film\n")
    assert told("text-classification", tmp_path / "a.txt")[0].startswith("a.txt:1: has no column 'label'")


def test_what_is_wrong_with_rows_sources_and_model_is_told_at_once(look, tmp_path, tiny):
    folder = Path(shutil.copytree(tiny / "encoder", tmp_path / "model"))
    (folder / "tokenizer.json").unlink()
    (tmp_path / "v.json").write_text("{}")
    with pytest.raises(DataProblem) as problem:
        look(
            "text-classification", folder, write_jsonl(tmp_path / "t.jsonl", [{"text": ""}]), tmp_path / "v.json",
            test=write_jsonl(tmp_path / "s.jsonl", []),
        )  # fmt: skip
    wheres = {finding.where.removeprefix(f"{tmp_path}/") for finding in problem.value.findings}
    assert wheres == {"t.jsonl:1", "v.json", "s.jsonl", "model"}


def test_slices_of_one_file_are_splits_that_share_nothing(look, tiny):
    file = str(tiny / "reviews.jsonl")
    parts = [SourceRef(file, split=f"train[{part}]") for part in (":60%", "60%:80%", "80%:")]
    checked = look("text-classification", "encoder", parts[0], parts[1], test=parts[2])
    assert not checked.findings
    assert [(facts.rows, facts.shared) for facts in checked.splits.values()] == [(144, {}), (48, {}), (48, {})]


@pytest.mark.usefixtures("requests_here")
def test_an_empty_slice_is_an_empty_source(write_yaml, home, tiny):
    split = "train[5000:]"
    source = {"source": str(tiny / "reviews.jsonl"), "split": split}
    with pytest.raises(ConfigError) as refused:
        check_sweep(write_yaml(data={"train": source}), Home(home))
    (problem,) = refused.value.problems
    assert (problem.where, problem.found) == (f"{tiny / 'reviews.jsonl'} {split}", "is empty")


# --- notes that name places ----------------------------------------------------------------------------


def test_notes_name_the_first_few_places(look, tmp_path):
    rows = reviews(60)
    train = write_jsonl(tmp_path / "t.jsonl", [*rows, *rows[:4], {"text": "film " * 40, "label": "rare"}])
    held_out = write_jsonl(tmp_path / "v.jsonl", [*reviews(20, seed=5), *rows[10:12], {"text": "a", "label": "odd"}])
    notes = look("text-classification", "encoder", train, held_out, test=held_out).notes
    shown = [note.replace(f"{tmp_path}/", "") for note in notes]
    assert shown[0] == (
        "train: 4 duplicate rows; a sweep drops them: t.jsonl:61 (as t.jsonl:1), t.jsonl:62 (as t.jsonl:2), "
        "t.jsonl:63 (as t.jsonl:3) and 1 more"
    )
    assert shown[1] == (
        "2 rows are in train and in validation; a sweep keeps them in validation only: "
        "t.jsonl:11 (as v.jsonl:21), t.jsonl:12 (as v.jsonl:22)"
    )
    assert shown[3] == "train: 1 row is longer than max_length 16: 26 tokens are cut: t.jsonl:65 (26)"
    assert shown[4].startswith("23 rows are in validation and in test; a sweep keeps them in test only: v.jsonl:1 (as ")
    assert shown[5] == "labels with fewer than 10 training rows: rare (1) at t.jsonl:65"


@pytest.fixture
def uncased(tiny, tmp_path):
    """The tiny encoder with the normalizer of an uncased BERT."""
    folder = Path(shutil.copytree(tiny / "encoder", tmp_path / "uncased"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_rows_that_the_tokenizer_reads_alike_are_a_leak_that_is_noted(look, uncased, tmp_path):
    """The model cannot tell them apart. Splits do not depend on the model, so a sweep keeps such rows."""
    rows = reviews(60)
    changed = [rows[0]["text"].upper(), rows[1]["text"].replace("a", "\u00e1"), rows[2]["text"].replace(" ", "  ")]
    held_out = [{**row, "text": text} for row, text in zip(rows, changed, strict=False)]
    train = write_jsonl(tmp_path / "t.jsonl", rows)
    validation = write_jsonl(tmp_path / "v.jsonl", [*reviews(20, seed=5), *held_out])

    def noted(model):
        notes = look("text-classification", model, train, validation).notes
        return [note.replace(f"{tmp_path}/", "") for note in notes if "the tokenizer drops" in note]

    (note,) = noted(uncased)
    assert note == (
        "3 rows of train are in validation too, but for case, accents or spaces that the tokenizer drops; a sweep "
        "keeps both, `hpo check --fix` keeps one: t.jsonl:1 (as v.jsonl:21), t.jsonl:2 (as v.jsonl:22), t.jsonl:3 "
        "(as v.jsonl:23)"
    )
    (note,) = noted("encoder")
    assert note.startswith("1 row of train is in validation too")


def test_a_label_that_is_not_trained_is_named_by_its_rows(look, tmp_path):
    odd = [{"text": f"a film {n}", "label": "odd"} for n in range(5)]
    checked = look(
        "text-classification", "encoder", write_jsonl(tmp_path / "t.jsonl", reviews(60)),
        write_jsonl(tmp_path / "v.jsonl", odd), test=write_jsonl(tmp_path / "s.jsonl", odd[4:]),
    )  # fmt: skip
    assert [finding.found.replace(f"{tmp_path}/", "") for finding in checked.findings] == [
        "labels that no training row has: odd (v.jsonl:1, v.jsonl:2, v.jsonl:3 and 1 more)",
        "labels that no training row has: odd (s.jsonl:1)",
    ]


def test_a_byte_order_mark_is_told_and_read_over(look, tmp_path):
    write_jsonl(tmp_path / "b.jsonl", reviews(60))
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext,label\na film,x\n")
    checked = look("text-classification", "encoder", tmp_path)
    assert not checked.findings
    assert [note for note in checked.notes if "byte order" in note] == [
        f"{tmp_path}/a.csv begins with a byte order mark; it is skipped"
    ]


def test_texts_that_become_blocks_are_measured_one_by_one_and_never_cut(look, tmp_path):
    texts = [*(f"{a} {b}" for a, b in PAIRS), " ".join(["film"] * 30)]
    checked = look("causal-lm", "chat", write_jsonl(tmp_path / "t.jsonl", [{"text": text} for text in texts]))
    facts = checked.splits["train"]
    assert facts.token_percentiles["p50"] == 3  # two words and the end
    assert (facts.too_long, facts.tokens_cut) == (0, 0)


def test_an_answer_that_is_cut_counts_as_cut(tmp_path):
    task = TASKS["text-to-text"]
    assert _tokens_over(task, Encoded([1] * 20, [1] * 18), 16) == 4 + 2
    assert _tokens_over(TASKS["chat"], Encoded([1] * 20, [1] * 20), 16) == 4


def test_rows_without_any_label_are_shown_all_the_same(look, tmp_path):
    rows = [{"text": f"film {i}", "labels": []} for i in range(40)]
    checked = look("multi-label-classification", "encoder", write_jsonl(tmp_path / "t.jsonl", rows))
    assert [finding.found for finding in checked.findings] == ["no row has a label"]
    assert checked.examples[0].target == "none"
