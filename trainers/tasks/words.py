"""Words as places in a text.

A text is tokenized as a whole, so that words have the same tokens as in running text: a byte-level tokenizer reads the
space before a word as part of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

Place = tuple[int, int]
"""The start and end of a word, or a token, in its text, in characters."""


def joined(words: Sequence[str]) -> tuple[str, tuple[Place, ...]]:
    """Words joined to a text with spaces between them, and their places in it."""
    ends = itertools.accumulate(len(word) + 1 for word in words)
    return " ".join(words), tuple((end - 1 - len(word), end - 1) for word, end in zip(words, ends, strict=True))
