"""An answer of a released model in a line."""

from __future__ import annotations

import pytest

from hpo.commands.predict import answer_line


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ({"label": "good", "score": 0.91234, "scores": {"good": 0.91234, "bad": 0.08766}}, "good  0.912"),
        ({"labels": ["a", "b"], "scores": {"a": 0.5, "b": 0.75, "c": 0.1}}, "a 0.500, b 0.750"),
        ({"labels": [], "scores": {"a": 0.4}}, "no label"),
        ({"value": -1.23456789}, "-1.235"),
        (
            {"entities": [{"label": "NAME", "text": "Jo An", "start": 0, "end": 5, "score": 0.98765}]},
            "Jo An NAME 0.988",
        ),
        ({"entities": []}, "no entity"),
        ({"text": "two\nlines"}, "two\nlines"),
        ({"embedding": [0.5, -0.25, 0.125, 0.0, 0.75]}, "0.500 -0.250 0.125 0.000 ... (5 numbers)"),
    ],
)
def test_an_answer_in_a_line(answer, line):
    assert answer_line(answer) == line
