"""Rows of two nights: chance is reported as rarely as said, and what has moved is said with its size."""

from __future__ import annotations

import random

import numpy as np
import pytest

from trainers.prepare.separation import separation
from trainers.prepare.served_log import Asked
from trainers.prepare.shift import FALSE_ALARMS, FEWEST, _Seen, compare_groups

WORDS = [f"word{number}" for number in range(400)]
WEIGHTS = [1 / (number + 3) for number in range(400)]


def rows(drawn, count, more=(), positive=0.5):
    """Texts of common and rare words, with labels."""
    found = {}
    for _ in range(count):
        text = " ".join([*drawn.choices(WORDS, WEIGHTS, k=drawn.randint(5, 25)), *more])
        found[f"{len(found)} {text}"] = _Seen(
            Asked(text, text), frozenset(["pos" if drawn.random() < positive else "neg"])
        )
    return found


def test_nights_without_change_raise_an_alarm_as_rarely_as_said():
    nights = 40
    drawn = random.Random(0)
    alarms = 0
    for _ in range(nights):
        found = compare_groups({"added": (rows(drawn, 120), rows(drawn, 40))})
        alarms += bool(found.shifts)
    assert FALSE_ALARMS == 0.01
    assert alarms <= 2  # more than 2 of 40 at 1 in 100: 1 in 130


def test_a_classifier_guesses_where_there_is_nothing_to_tell_apart():
    drawn = random.Random(1)
    separated = [
        separation(*([one.asked.said for one in rows(drawn, count).values()] for count in (80, 40))) for _ in range(40)
    ]
    assert abs(np.mean([one.auc for one in separated]) - 0.5) < 0.02
    assert sum(one.p_value < 0.05 for one in separated) <= 5
    assert sum(one.low <= 0.5 <= one.high for one in separated) >= 35


def test_a_classifier_sees_a_topic_that_no_single_word_shows():
    drawn = random.Random(2)
    new = [WORDS[number] for number in range(0, 400, 2)]
    first = [one.asked.said for one in rows(drawn, 200).values()]
    second = [f"{one.asked.said} {' '.join(drawn.sample(new, 6))}" for one in rows(drawn, 100).values()]
    separated = separation(first, second)
    assert separated.low > 0.5
    assert separated.p_value < 1e-4
    assert separated == separation(first[::-1], second[::-1])


def test_what_has_moved_is_said_with_its_size():
    drawn = random.Random(3)
    before = rows(drawn, 200)
    found = compare_groups({"added": (before, rows(drawn, 60, ["refund"] * 9, positive=0.95)), "gone": (before, {})})
    assert {shift.what for shift in found.shifts} == {"length", "label", "word", "classifier"}
    assert found.compared == {"added": 60, "gone": 0}
    said = "\n".join(found.notes)
    assert "rows added have another length: their median is " in said
    assert "label pos: " in said
    assert "words that come more often in rows added: refund (100.0%, 0.0% of the others)" in said
    assert "a classifier tells rows added from the others: area under the curve 1.00 (" in said


def test_labels_that_are_exchanged_are_seen_though_words_and_labels_are_as_before():
    """As after a broken export."""
    drawn = random.Random(5)

    def judged(count, right):
        other = "neg" if right == "pos" else "pos"
        found = rows(drawn, count)
        return {
            key: _Seen(row.asked, frozenset([right if "word3 " in row.asked.said else other]))
            for key, row in found.items()
        }

    before, wrong = judged(300, "pos"), judged(120, "neg")
    assert compare_groups({"added": (before, judged(120, "pos"))}).shifts == []
    found = compare_groups({"added": (before, wrong)})
    (shift,) = [shift for shift in found.shifts if shift.what == "labelling"]
    assert shift.low > 0.6 > shift.before
    assert any(note.startswith("the same words have other labels in rows added: a classifier") for note in found.notes)
    without = {key: _Seen(row.asked, frozenset()) for key, row in before.items()}
    assert "labelling" not in {shift.what for shift in compare_groups({"added": (without, wrong)}).shifts}


@pytest.mark.parametrize(
    ("count", "note"),
    [
        (FEWEST - 1, f"{FEWEST - 1} rows are added: too few to compare, {FEWEST} would do"),
        (60, "nothing differs more than by chance (a false alarm comes about once in 100 nights)"),
        (0, None),
    ],
)
def test_few_rows_and_no_change_are_said(count, note):
    drawn = random.Random(4)
    assert compare_groups({"added": (rows(drawn, 100), rows(drawn, count))}).notes == ([note] if note else [])
