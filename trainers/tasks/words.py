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


def first_tokens(places: Sequence[Place], tokens: Sequence[Place]) -> dict[int, int]:
    """By a word's number the first token that overlaps it and carries no word before it.

    Words that were cut off, or that share their only token with the word before, have none. What
    `trainers/export/runtime.py` does is the same.
    """
    firsts: dict[int, int] = {}
    token = 0
    for word, (start, end) in enumerate(places):
        while token < len(tokens) and (tokens[token][1] <= start or tokens[token][0] == tokens[token][1]):
            token += 1
        if token < len(tokens) and tokens[token][0] < end:
            firsts[word] = token
            token += 1
    return firsts
