"""What an edit of a sweep file changed, in words."""

from __future__ import annotations

import pytest

from hpo.results.changes import change_in_words
from hpo.results.state import Change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Change("finalists", {"top": 2, "seeds": 3}, None), 'finalists: {"top": 2, "seeds": 3} -> null'),
        (Change("method", "lora", "dora"), 'method: "lora" -> "dora"'),
        (Change("training.group_by_length", True, False), "training.group_by_length: true -> false"),
        (Change("seed", 0, "ü" * 200), f'seed: 0 -> "{"ü" * 99}... (202 characters)'),
    ],
)
def test_an_edit_is_said_as_a_file_may_write_it(change, words):
    assert change_in_words(change) == words
