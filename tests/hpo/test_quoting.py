"""Other people's text in a message: bounded, and with nothing that a terminal obeys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.errors import MOST_PROBLEMS, ConfigError, Problem, did_you_mean
from hpo.quoting import listed, quoted, visible


def test_a_long_value_is_its_beginning_and_its_length():
    assert quoted("ab") == "'ab'"
    assert quoted("a" * 1000) == f"'{'a' * 99}... (1,002 characters)"
    assert len(quoted([["x"] * 100] * 100)) < 130


def test_a_long_list_is_its_beginning_and_its_count():
    assert listed(range(3)) == "0, 1, 2"
    assert listed(range(15)).endswith("13, 14")
    assert listed(range(3000)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2,990 more"
    assert len(listed(["x" * 10_000])) < 130


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tab\tand\nline", "tab\tand\nline"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\rb\x07\x9b", "a\\rb\\x07\\x9b"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("half \ud83d", "half \\ud83d"),
        ("müde \U0001f600 \U0001f468\u200d\U0001f469", "müde \U0001f600 \U0001f468\u200d\U0001f469"),
    ],
)
def test_what_a_terminal_would_obey_is_made_visible(text, shown):
    assert visible(text) == shown


@given(st.text(st.characters()))
def test_what_is_visible_can_be_written_and_stays_as_it_is(text):
    shown = visible(text)
    shown.encode()
    assert visible(shown) == shown


def test_a_message_has_so_many_problems_and_no_more():
    error = ConfigError([Problem(f"a.yaml:{n}", "x" * 100_000) for n in range(1000)])
    assert len(error.problems) == 1000
    assert str(error).splitlines()[0] == "1000 problems"
    assert str(error).splitlines()[-1] == f"  and {1000 - MOST_PROBLEMS} more"
    assert len(str(error)) < 150_000


def test_a_suggestion_is_bounded_too():
    assert did_you_mean("x" * 1_000_000, ["lora", "dora"]) == "known: lora, dora"
    assert did_you_mean("nothing like it", [f"column{n}" for n in range(3000)]).endswith("and 2,990 more")
