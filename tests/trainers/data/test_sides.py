"""A row has its side for ever: by the hash of its input, and held out once it was held out."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data.formats.base import DataProblem
from trainers.data.passages import OPENING, PASSAGE, passages
from trainers.data.sides import Input, Rule, Standing, StandingFiles, hash_of, rule_for

SIZES = {"validation": 0.1, "test": 0.1}
RULE = Rule(0, SIZES)
INPUTS = [Input(hash_of(f"row {number}")) for number in range(60)]
night = st.lists(
    st.tuples(st.sampled_from(INPUTS), st.sampled_from(["train", "validation", "test"])), min_size=1, max_size=80
)


@given(st.lists(night, min_size=2, max_size=5))
def test_what_was_held_out_once_is_never_trained_on_and_what_chose_once_never_certifies(nights):
    standing, held, chose = Standing(RULE), set(), set()
    for rows in nights:
        sides = standing.sides(rows)
        standing.hold_out(sides)
        assert not held & {digest for digest, side in sides.items() if side == "train"}
        held |= {digest for digest, side in sides.items() if side != "train"}
        assert not chose & {digest for digest, side in sides.items() if side == "certify"}
        chose |= {digest for digest, side in sides.items() if side == "validation"}
        # Each input has one side, and no row of a held-out file is trained on.
        assert all(sides[row.hash] != "train" for row, split in rows if split != "train")


@given(st.sets(st.integers(0, 7), min_size=1))
def test_a_text_that_grows_out_of_one_that_chose_does_not_certify(before):
    """Whichever half its new text alone would be in."""
    chose = {INPUTS[number].hash: "validation" for number in before}
    grown = [Input(hash_of(f"grown {number}"), tuple(chose)) for number in range(9)]
    sides = Standing(RULE, chose).sides((row, split) for row in grown for split in ("train", "validation"))
    assert set(sides.values()) == {"validation"}


def test_half_of_the_rows_for_validation_certify_whether_drawn_or_given():
    rows = [Input(hash_of(f"text {number}")) for number in range(20_000)]
    drawn = [RULE.side(row) for row in rows]
    given_ones = list(Standing(RULE).sides((row, "validation") for row in rows).values())
    for sides in (drawn, given_ones):
        both = sides.count("certify") + sides.count("validation")
        assert abs(sides.count("certify") - both / 2) < 3 * (both / 4) ** 0.5
    assert all(side == half for side, half in zip(drawn, given_ones, strict=True) if side in ("certify", "validation"))


@given(st.lists(st.lists(st.sampled_from(INPUTS), min_size=1), min_size=2, max_size=5))
def test_no_row_of_train_changes_sides_whatever_is_around_it(nights):
    standing, before = Standing(RULE), {}
    for rows in nights:
        sides = standing.sides((row, "train") for row in rows)
        standing.hold_out(sides)
        assert all(before.get(digest, side) == side for digest, side in sides.items())
        before.update(sides)


def test_the_shares_are_about_those_asked_for():
    count = 20_000
    sides = [RULE.side(Input(hash_of(f"text {number}"))) for number in range(count)]
    assert abs(sides.count("test") - 0.1 * count) < 3 * (count * 0.1 * 0.9) ** 0.5
    validation = sides.count("validation") + sides.count("certify")
    assert abs(validation - 0.09 * count) < 3 * (count * 0.09 * 0.91) ** 0.5


def test_a_number_of_rows_is_the_share_of_the_first_night_and_stays():
    first, findings = rule_for({"test": 100, "validation": 90}, 7, 1000, ["train"], None)
    assert (first.shares, findings) == ({"test": 0.1, "validation": 0.1}, [])
    assert rule_for({"test": 500, "validation": 0.4}, 8, 5000, ["train"], first) == (first, [])


def test_a_split_with_its_own_file_is_not_drawn_until_the_file_goes():
    first, _ = rule_for(SIZES, 0, 1000, ["train", "test"], None)
    assert first.shares == {"validation": 0.1}
    assert rule_for(SIZES, 0, 1000, ["train"], first)[0].shares == {"validation": 0.1, "test": 0.1}


def test_a_number_of_rows_that_leaves_none_is_a_finding():
    _, (finding,) = rule_for({"test": 0.1, "validation": 90}, 0, 50, ["train"], None)
    assert (finding.where, finding.found) == (
        "data.validation_size",
        "asks for 90 of 45 different rows",
    )


def test_sides_are_the_same_in_every_version():
    """Rows that were frozen by an earlier version are recognised by this one."""
    assert hash_of("a film") == "c0d4426efc92f29b764bb9dccf878898"
    assert hash_of(("a", "bé")) == "ccd8d88d8eed983e4a6fbe5cf72f1702"
    first = ["validation", "test", "train", "train", "train", "train", "train", "train", "test", "train"]
    assert [RULE.side(row) for row in INPUTS[:10]] == first


def test_rule_and_rows_are_read_as_they_were_written(tmp_path):
    files = StandingFiles(tmp_path / "nights" / "n")
    assert files.read() is None
    standing = Standing(RULE, {INPUTS[0].hash: "test", INPUTS[1].hash: "validation", INPUTS[2].hash: "certify"})
    files.write(standing)
    assert files.read() == standing
    files.held_out.write_text("x nonsense\n")
    with pytest.raises(DataProblem, match="cannot be read"):
        files.read()
    files.held_out.unlink()
    with pytest.raises(DataProblem, match="No such file"):  # and not: nothing was ever held out
        files.read()


words = st.text("abcdefgh ", min_size=0, max_size=60)


@settings(max_examples=60)
@given(st.lists(words, min_size=1, max_size=40), st.lists(words, max_size=10), st.integers(1, 40))
def test_a_document_that_grows_keeps_its_passages(lines, more, repeat):
    document = "".join(f"{line}\n" for line in lines * repeat)
    before = list(passages(document))
    after = list(passages(document + "\n".join(more)))
    assert "".join(passage.text for passage in before) == document
    assert after[: len(before) - 1] == before[:-1]
    last, grown = before[-1], after[len(before) - 1]
    if last.text.strip():
        assert last.input.hash in (grown.input.hash, *grown.input.earlier)


def test_passages_are_as_long_as_said_whatever_the_lines_are():
    drawn = random.Random(0)
    for length in (8, 70, 600):
        lines = ["".join(drawn.choices("abcdefghijkl ", k=length)).strip() for _ in range(400_000 // length)]
        count = len(list(passages("\n".join(lines))))
        assert 0.6 * PASSAGE < 400_000 / count < 1.6 * PASSAGE


def test_documents_that_begin_alike_are_not_one():
    licence = "# Copyright of somebody\n"
    first, second = (next(passages(licence + letter * OPENING)) for letter in "ab")
    assert first.input.hash != second.input.hash
