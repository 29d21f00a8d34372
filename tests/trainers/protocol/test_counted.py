"""A count and its noun."""

from __future__ import annotations

import pytest

from trainers.protocol.counted import counted


@pytest.mark.parametrize(
    ("count", "nouns", "text"),
    [
        (0, ["row"], "0 rows"),
        (1, ["row"], "1 row"),
        (2000, ["row"], "2,000 rows"),
        (1, ["row is", "rows are"], "1 row is"),
        (2, ["row is", "rows are"], "2 rows are"),
    ],
)
def test_a_noun_is_as_its_count(count, nouns, text):
    assert counted(count, *nouns) == text
