"""Which rows choose and which certify, and what is said of them before a sweep."""

from __future__ import annotations

import dataclasses
import math

import pytest

from hpo.results.row_parts import SMALLEST, is_split, smallest_difference, split_rows, what_rows_show, whole
from tests.hpo.builders import make_config

CONTENTS = [f'{{"text": "row {n}"}}\n'.encode() for n in range(1000)]


def test_every_row_is_in_one_part_and_about_half_of_them_in_each():
    parts = split_rows(CONTENTS)
    assert sorted([*parts.choosing, *parts.certifying]) == list(range(1000))
    assert parts.is_split
    assert 450 < len(parts.choosing) < 550


def test_the_content_of_a_row_decides_and_not_its_place():
    there, back = split_rows(CONTENTS), split_rows(CONTENTS[::-1])
    assert sorted(999 - back.choosing) == list(there.choosing)


def test_all_rows_do_both_where_they_are_not_split():
    parts = whole(5)
    assert list(parts.choosing) == list(parts.certifying) == [0, 1, 2, 3, 4]
    assert not parts.is_split


def test_what_500_rows_can_show():
    assert smallest_difference(500) == pytest.approx(1.96 * math.sqrt(0.1 / 500))
    assert f"{smallest_difference(500):.2f}" == "0.03"


@pytest.mark.parametrize(
    ("rows", "changes", "begins"),
    [
        (
            500,
            {"finalists": True},
            ["finalists: about half of the 500", "250 rows can show a difference of about 0.04"],
        ),
        (500, {}, ["500 rows can show a difference of about 0.03 in f1_macro at best"]),
        (SMALLEST - 1, {"finalists": True}, ["finalists: 199 validation rows are fewer than 200", "199 rows can show"]),
        (5, {}, ["5 rows can show no difference, however large it is: 6 are the fewest"]),
        (6, {}, ["6 rows can show a difference of about 0.3 in f1_macro at best"]),
        (500, {"objective": {"metric": "loss"}}, []),  # nothing is known of it beforehand
    ],
)
def test_before_a_sweep_it_is_said_what_its_rows_can_show(tmp_path, rows, changes, begins):
    lines = what_rows_show(make_config(tmp_path, **changes), rows)
    assert len(lines) == len(begins)
    assert all(line.startswith(begin) for line, begin in zip(lines, begins, strict=True))


def test_all_rows_of_a_night_s_sweep_choose_for_others_certify(tmp_path):
    config = dataclasses.replace(make_config(tmp_path, finalists=True), is_certified_later=True)
    assert not is_split(config, 5000)
    assert (
        what_rows_show(config, 5000)[0]
        == "5,000 validation rows choose the champion; other rows certify it after the sweep"
    )


def test_of_generated_text_only_the_rows_with_answers_count(tmp_path):
    config = make_config(
        tmp_path, task="instruct", data={"train": "train.jsonl", "text_template": "{a}", "answer": "b"},
        metrics=["exact_match"], objective={"metric": "exact_match"}, generation={"examples": 64}, finalists=True,
    )  # fmt: skip
    assert what_rows_show(config, 5000)[0].startswith("finalists: 64 validation rows are fewer than 200")
