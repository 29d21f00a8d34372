"""`hpo predict`: texts as a person gives them, and an answer in a line."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from hpo.cli.main import cli
from hpo.commands.predict import answer_line, predict
from hpo.errors import UsageError
from hpo.paths import Home


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


def test_a_hyphen_stands_for_the_lines_of_the_standard_input(monkeypatch):
    """Also as an editor on Windows writes them; what is not UTF-8 is left to the runtime, which refuses it."""
    asked = []
    monkeypatch.setattr(
        "hpo.commands.predict.predict", lambda home, name, texts: asked.extend(texts) or [{"text": "an answer"}]
    )
    given = b"\xef\xbb\xbfa film\r\n\na\x0cb\xe2\x80\xa8c\nna\xefve"
    done = CliRunner().invoke(cli, ["predict", "mine", "first", "-"], input=given)
    assert done.exit_code == 0, done.output
    assert asked == ["first", "a film", "", "a\x0cb\u2028c", "na\udcefve"]


def test_an_empty_standard_input_is_refused():
    done = CliRunner().invoke(cli, ["predict", "mine", "-"], input="")
    assert str(done.exception) == "the standard input is empty; expected one text a line"
    assert done.exception.exit_code == 2


def test_texts_are_counted_from_1(monkeypatch, tmp_path):
    def refuse(texts):
        raise ValueError("input 3: is empty; expected a text of at least one token")

    monkeypatch.setattr("hpo.commands.predict.version_named", lambda *_: SimpleNamespace(folder=lambda: tmp_path))
    monkeypatch.setattr("hpo.commands.predict.Release.load", lambda folder: SimpleNamespace(predict=refuse))
    with pytest.raises(UsageError, match=r"^text 4: is empty; expected"):
        predict(Home(tmp_path), "mine", ["a", "b", "c", ""])
