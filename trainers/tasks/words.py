"""Words as places in a text, and the token of each that carries its tag.

A text is tokenized whole, so that words look to the model as they do in running text: a byte-level tokenizer reads the
blank before a word as part of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

Place = tuple[int, int]
"""Where a word, or a token, begins and ends in its text, in characters."""


def joined(words: Sequence[str]) -> tuple[str, tuple[Place, ...]]:
    """Words as a text with a blank between them, and where they are in it."""
    ends = itertools.accumulate(len(word) + 1 for word in words)
    return " ".join(words), tuple((end - 1 - len(word), end - 1) for word, end in zip(words, ends, strict=True))
