"""Words of a text: where they are, which token has whose tag, and the entities that tags make."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from .inputs import parsed_json

Place: TypeAlias = tuple[int, int]
"""The start and end of a word or a token in its text, in characters."""

MARKS = "".join(sign for sign in map(chr, range(0x300, 0x10000)) if unicodedata.category(sign).startswith("M"))
"""Accents and vowel signs: they belong to the letter before them, but `re` does not take them for letters."""
WORD = re.compile(rf"\w[\w{MARKS}]*|[^\w\s][{MARKS}]*")
"""A word, or a sign by itself. Training splits a text with spans into words in the same way."""


def words_of(given: object) -> tuple[str, list[Place]]:
    """A text and the places of its words: the words given, or those that training would split the text into."""
    parsed = parsed_json(given) if isinstance(given, str) and given.startswith("[") else given
    if isinstance(parsed, Sequence) and not isinstance(parsed, str) and all(isinstance(word, str) for word in parsed):
        ends = list(itertools.accumulate(len(word) + 1 for word in parsed))
        return " ".join(parsed), [(end - 1 - len(word), end - 1) for word, end in zip(parsed, ends, strict=True)]
    if not isinstance(given, str):
        raise ValueError(f"expected a text or a list of words, got {type(given).__name__}")
    return given, [word.span() for word in WORD.finditer(given)]


def first_tokens(places: Sequence[Place], tokens: Sequence[Place]) -> dict[int, int]:
    """A mapping from a word's index to the first token that overlaps the word and belongs to no word before it.

    Words that were cut off, or share their only token with the word before, are left out. Training uses it too.
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


def entities(text: str, words: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Entities from tags, read as conlleval does: an I- tag without an entity before it starts one."""
    found: list[dict[str, Any]] = []
    before = "O"
    for word in words:
        tag, start, end, score = word["tag"], word["start"], word["end"], word["score"]
        if tag[:2] == "I-" and before[2:] == tag[2:]:
            entity = found[-1]
            entity |= {"text": text[entity["start"] : end], "end": end, "score": min(score, entity["score"])}
        elif tag != "O":
            found.append({"label": tag[2:], "text": text[start:end], "start": start, "end": end, "score": score})
        before = tag
    return found
