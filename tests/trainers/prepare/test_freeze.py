"""Rows are frozen as they are, each on its side for ever; equal rows have one folder, which is whole or not there."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import GOOD, reviews, write_jsonl
from trainers.data.formats.base import DataProblem
from trainers.data.sides import SIDES
from trainers.prepare import freeze as freezing
from trainers.prepare.freeze import freeze
from trainers.prepare.frozen_rows import folder_hash
from trainers.protocol.requests import Freeze
from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef, Workload

REVIEWS = [{**row, "text": f"{row['text']} {number}"} for number, row in enumerate(reviews(160))]


class Nights:
    """The nights of one name, with files that are written before each."""

    def __init__(self, folder: Path, task="text-classification", columns=None, **sizes):
        self.folder, self.task, self.sizes = folder, task, {"validation_size": 0.2, "test_size": 0.2, **sizes}
        self.columns = columns or {"text": "text", "label": "label"}
        self.before = None

    def run(self, **rows):
        """Freeze the given rows of each source."""
        refs = {split: SourceRef(str(self._written(split, some))) for split, some in rows.items()}
        data = DataRef(
            refs["train"], refs.get("validation"), refs.get("test"), self.columns, seed=0, **self.sizes
        )  # fmt: skip
        work = Workload(self.task, ModelRef(""), data, 64, "fp32", "")
        frozen = freeze(Freeze(work, str(self.folder / "data"), str(self.folder), self.before))
        self.before = frozen.dir
        return frozen

    def _written(self, split, rows):
        self.folder.mkdir(exist_ok=True)
        if isinstance(rows, str):
            path = self.folder / f"{split}.txt"
            path.write_text(rows)
            return path
        return write_jsonl(self.folder / f"{split}.jsonl", rows)


def rows_of(frozen, split):
    return [json.loads(line) for line in Path(frozen.dir, f"{split}.jsonl").read_text().splitlines()]


def sides_of(frozen, column="text"):
    return {row[column]: side for side in SIDES for row in rows_of(frozen, side)}


@pytest.fixture
def nights(tmp_path):
    return Nights(tmp_path / "nights")


def test_every_row_is_frozen_once_and_nothing_else_of_it(nights):
    frozen = nights.run(train=[{**row, "seen": 1} for row in [*REVIEWS, *REVIEWS[:9]]])
    assert sum(frozen.rows.values()) == sum(frozen.added.values()) == 160
    assert [row for split in SIDES for row in rows_of(frozen, split) if set(row) != {"text", "label"}] == []
    assert all(5 < frozen.rows[side] < 60 for side in ("validation", "certify", "test"))
    assert frozen.labels["train"].keys() == {"negative", "positive"}
    assert "9 duplicate rows dropped" in frozen.notes
    assert folder_hash(Path(frozen.dir)) == frozen.sha256 == Path(frozen.dir).name


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 1 << 30), min_size=2, max_size=3))
def test_no_row_changes_sides_when_rows_come_go_move_and_are_relabelled(tmp_path_factory, seeds):
    nights, before = Nights(tmp_path_factory.mktemp("nights") / "n"), {}
    for seed in seeds:
        drawn = random.Random(seed)
        rows = drawn.sample(REVIEWS, drawn.randint(100, 160))
        frozen = nights.run(train=[{**row, "label": drawn.choice(["positive", "negative"])} for row in rows])
        sides = sides_of(frozen)
        assert sides.keys() == {row["text"] for row in rows}
        assert all(before.get(text, side) == side for text, side in sides.items())
        before.update(sides)


def test_the_difference_to_the_night_before_is_counted(nights):
    first = nights.run(train=REVIEWS[:150])
    flipped = {text for text, side in sides_of(first).items() if side == "train"}
    changed = [{**row, "label": "negative"} if row["text"] in flipped else row for row in REVIEWS[5:]]
    second = nights.run(train=changed[::-1])
    assert sum(second.added.values()) == 10
    assert sum(second.gone.values()) == 5
    positive = sum(row["label"] == "positive" and row["text"] in flipped for row in REVIEWS[5:150])
    assert second.relabelled == {"train": positive, "validation": 0, "certify": 0, "test": 0}


def test_the_same_rows_in_another_order_are_the_same_data(nights):
    first, second = nights.run(train=REVIEWS), nights.run(train=REVIEWS[::-1])
    assert first.sha256 == second.sha256
    assert (second.added, second.gone) == (dict.fromkeys(SIDES, 0),) * 2
    assert [path.name for path in (nights.folder / "data").iterdir()] == [first.sha256]


def test_the_same_of_several_answers_is_kept_in_every_order(nights):
    other = [{**row, "label": "negative" if row["label"] == "positive" else "positive"} for row in REVIEWS]
    first, second = nights.run(train=[*REVIEWS, *other]), nights.run(train=[*other, *REVIEWS])
    assert first.sha256 == second.sha256


def test_rows_of_a_held_out_file_stay_there_and_never_come_back_to_train(nights):
    own = REVIEWS[:20]
    first = nights.run(train=REVIEWS, validation=own)
    halves = [{row["text"] for row in rows_of(first, side)} for side in ("validation", "certify")]
    assert halves[0] | halves[1] == {row["text"] for row in own}  # train is drawn for test alone
    assert all(halves)
    second = nights.run(train=REVIEWS)
    assert sides_of(second).items() >= {row["text"]: sides_of(first)[row["text"]] for row in own}.items()
    third = nights.run(train=REVIEWS, validation=REVIEWS[100:140])
    taken = sum(sides_of(second)[row["text"]] == "train" for row in REVIEWS[100:140])
    assert f"{taken} rows that were trained on before are held out now, as the files say" in third.notes


def test_shares_stay_those_of_the_first_night(tmp_path):
    first = Nights(tmp_path / "n", validation_size=16).run(train=REVIEWS[:80])
    later = Nights(tmp_path / "n", validation_size=0.5).run(train=REVIEWS[:80])
    assert later.sha256 == first.sha256
    (note,) = [note for note in later.notes if note.startswith("data.validation_size")]
    assert note.startswith(
        "data.validation_size is 0.5 and was 16 when rows were first drawn: what was drawn then stays"
    )


@pytest.mark.parametrize("name", ["_write", "folder_hash", "replace_folder"])
def test_a_night_that_is_killed_leaves_nothing_that_looks_whole(nights, monkeypatch, name):
    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"trainers.prepare.frozen_rows.{name}", killed)
        with pytest.raises(KeyboardInterrupt):
            nights.run(train=REVIEWS)
    folder = nights.folder / "data"
    assert not folder.exists() or not [path for path in folder.iterdir() if not path.name.startswith(".")]
    frozen = nights.run(train=REVIEWS)
    assert [path.name for path in folder.iterdir()] == [frozen.sha256]


def test_a_folder_that_somebody_changed_is_written_again(nights):
    first = nights.run(train=REVIEWS)
    Path(first.dir, "train.jsonl").write_text("")
    assert nights.run(train=REVIEWS).sha256 == first.sha256
    assert len(rows_of(first, "train")) == first.rows["train"]


@pytest.mark.parametrize(
    ("rows", "where", "found"),
    [
        ([*REVIEWS, {"text": "", "label": "x"}], "train.jsonl:161", "text is ''"),
        (REVIEWS[:1], "data.", "of 1 row none is in"),
    ],
    ids=["an invalid row", "too few rows"],
)
def test_rows_that_no_sweep_could_use_are_refused_and_nothing_is_written(nights, rows, where, found):
    with pytest.raises(DataProblem) as problem:
        nights.run(train=rows)
    assert any(where in finding.where and found in finding.found for finding in problem.value.findings)
    assert sorted(path.name for path in nights.folder.iterdir()) == ["train.jsonl"]


def test_a_label_that_training_lacks_is_a_finding_with_its_remedy(nights):
    rare = next({"text": f"odd {n}", "label": "rare"} for n in range(99) if side_of(f"odd {n}") == "test")
    with pytest.raises(DataProblem) as problem:
        nights.run(train=[*REVIEWS, rare])
    (finding,) = problem.value.findings
    assert (finding.where, finding.found.startswith("labels that no training row has: rare (")) == ("data.test", True)
    assert finding.expected.startswith("more rows with them")


def test_a_new_or_corrected_label_lets_no_row_choose_that_certified(nights):
    first = sides_of(nights.run(train=REVIEWS))
    relabelled = [{**row, "label": "all new" if number % 3 else "about nothing"} for number, row in enumerate(REVIEWS)]
    assert sides_of(nights.run(train=relabelled)) == first


def side_of(text):
    return freezing.Rule(0, {"test": 0.2, "validation": 0.2}).side(freezing.Input(freezing.hash_of(text)))


@pytest.mark.parametrize(
    ("task", "columns", "row"),
    [
        ("text-to-text", {"input": "input", "output": "output"},
         lambda asked, answer: {"input": asked, "output": answer}),
        ("instruct", {"text_template": "User: {input}\nAssistant: {output}"},
         lambda asked, answer: {"input": asked, "output": answer}),
        ("chat", {"messages": "messages"},
         lambda asked, answer: {"messages": [{"role": "user", "content": asked},
                                             {"role": "assistant", "content": answer}]}),
        ("token-classification", {"words": "words", "tags": "tags", "text": "text", "entities": "entities"},
         lambda asked, answer: {"words": asked.split(), "tags": ["B-X" if answer[0] in "bw" else "O", "B-X", "O"]}),
        ("regression", {"text": "text", "value": "value"}, lambda asked, answer: {"text": asked, "value": len(answer)}),
    ],
)  # fmt: skip
def test_other_answers_to_one_input_are_on_its_side(tmp_path, task, columns, row):
    drawn = random.Random(1)
    asked = [f"what is {number}" for number in range(80)]
    nights = Nights(tmp_path / "n", task, columns)
    first = nights.run(train=[row(one, word) for one in asked for word in drawn.sample(GOOD, 2)])
    second = nights.run(train=[row(one, word) for one in asked for word in drawn.sample(GOOD, 1)])
    sides: dict[str, set[str]] = {}
    for frozen in (first, second):
        for split in SIDES:
            for kept in rows_of(frozen, split):
                given = json.dumps(kept.get("input") or kept.get("words") or kept.get("text") or kept["messages"][0])
                sides.setdefault(given, set()).add(split)
    assert len(sides) == 80
    assert {len(found) for found in sides.values()} == {1}


def test_running_text_is_all_there_and_keeps_repeated_lines(tmp_path):
    drawn = random.Random(0)
    lines = ["", "* * *", *(" ".join(drawn.choices(GOOD, k=12)) for _ in range(4000))]
    text = "".join(f"{drawn.choice(lines)}\n" for _ in range(5000))
    nights = Nights(tmp_path / "n", "causal-lm", {"text": "text"})
    first = nights.run(train=text)
    assert first.is_running_text
    written = {split: [row["text"] for row in rows_of(first, split)] for split in SIDES}
    assert sum(len(one) for many in written.values() for one in many) == len(text)
    assert all(one in text for many in written.values() for one in many)
    second = nights.run(train=text + "".join(f"{drawn.choice(lines)}\n" for _ in range(500)))
    held = {one for side in SIDES[1:] for one in written[side]}
    grown = [row["text"] for row in rows_of(second, "train")]
    assert not [one for one in held if any(one in row for row in grown)]
    assert second.gone == dict.fromkeys(SIDES, 0)


def test_a_frozen_folder_is_read_as_the_same_rows(nights, tmp_path):
    first = nights.run(train=REVIEWS)
    again = Nights(tmp_path / "again")
    rows = {side: rows_of(first, side) for side in SIDES}
    second = again.run(train=rows["train"], validation=rows["certify"] + rows["validation"], test=rows["test"])
    assert second.sha256 == first.sha256
    assert replace(second, dir="", notes=[], added={}) == replace(first, dir="", notes=[], added={})
