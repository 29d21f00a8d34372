"""Entities as spans of characters, to words with tags (IOB2)."""

from __future__ import annotations

import itertools
import re
from typing import Any

_WORD = re.compile(r"\w+|[^\w\s]")


def words_and_tags(text: str, entities: Any) -> tuple[tuple[str, ...], tuple[str, ...]] | str:
    """The words of a text and the tag of each, or why the spans are wrong.

    A span may begin or end inside a word of `\\w+`; the word is cut there, so that no entity loses or gains letters.
    """
    if not isinstance(entities, list):
        return f"entities is {entities!r:.60}"
    spans: list[tuple[int, int, str]] = []
    for entity in entities:
        if why := _refuse(entity, len(text)):
            return why
        spans.append((entity["start"], entity["end"], entity["label"]))
    spans.sort()
    for (_, end, label), (start, _, other) in itertools.pairwise(spans):
        if start < end:
            return f"entities {label!r} and {other!r} overlap at character {start}"
    words, tags, at = [], [], 0
    for start, end, label in spans:
        outside, inside = _WORD.findall(text[at:start]), _WORD.findall(text[start:end])
        words += outside + inside
        tags += ["O"] * len(outside) + [f"{'I' if i else 'B'}-{label}" for i in range(len(inside))]
        at = end
    rest = _WORD.findall(text[at:])
    words, tags = words + rest, tags + ["O"] * len(rest)
    return (tuple(words), tuple(tags)) if words else "has no words"


def _refuse(entity: Any, length: int) -> str | None:
    if not isinstance(entity, dict) or not isinstance(entity.get("label"), str) or not entity["label"]:
        return f"entity {entity!r:.60} has no label"
    start, end = entity.get("start"), entity.get("end")
    if type(start) is not int or type(end) is not int:
        return f"entity {entity!r:.60} has no start and end"
    if not 0 <= start < end <= length:
        return f"entity {entity['label']!r} runs from {start} to {end} in a text of {length} characters"
    return None
