"""Converts entities as spans of characters to words and their tags (IOB2)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trainers.data.formats.base import cut
from trainers.runtime.words import WORD
from trainers.tasks.words import Place

_STARTS, _ENDS = ("start", "start_offset", "begin"), ("end", "end_offset", "stop")
_LABELS = ("label", "labels", "entity", "type", "tag")
SPANS = ("entities", "label", "labels", "spans", "annotations")
"""Columns in which tools store spans: the default, Doccano and Label Studio, Prodigy, Label Studio's full export."""


class NoSpan(Exception):
    """A span is invalid; the message says why."""


@dataclass(frozen=True)
class Span:
    """An entity: its label, and its characters from `start` up to but without `end`."""

    start: int
    end: int
    label: str


def places_and_tags(text: str, entities: Any) -> tuple[tuple[Place, ...], tuple[str, ...]] | str:
    """The words of a text and the tag of each, or the reason why the spans are invalid.

    `entities` has `[start, end, label]` or mappings with the usual tools' names. A span may start or end inside a word;
    the word is split there, so that no entity loses or gains letters. Spaces at the ends of a span are ignored.
    """
    if not isinstance(entities, (list, tuple)):
        return f"entities is {cut(repr(entities))}"
    try:
        read = dict.fromkeys(_trimmed(_span(entity, text), text) for entity in entities)  # each once, in their order
        spans = sorted(read, key=lambda span: (span.start, span.end))
    except NoSpan as problem:
        return str(problem)
    for before, after in itertools.pairwise(spans):
        if after.start < before.end:
            return f"entities {before.label!r} and {after.label!r} overlap at character {after.start}"
    places: list[Place] = []
    tags: list[str] = []
    at = 0
    for span in spans:
        outside, inside = list(_words(text, at, span.start)), list(_words(text, span.start, span.end))
        places += outside + inside
        tags += ["O"] * len(outside) + [f"{'I' if i else 'B'}-{span.label}" for i in range(len(inside))]
        at = span.end
    rest = list(_words(text, at, len(text)))
    return (tuple(places + rest), tuple(tags + ["O"] * len(rest))) if places or rest else "has no words"


def annotated(value: Any) -> Any:
    """The spans of Label Studio's first annotation that was not cancelled; any other value unchanged.

    Label Studio writes `annotations: [{"result": [{"value": ...}]}]`.
    """
    if not isinstance(value, list) or not all(isinstance(one, dict) and "result" in one for one in value):
        return value
    results = [one["result"] for one in value if not one.get("was_cancelled")]
    if not results:
        return None
    found = [one.get("value") for one in results[0] or () if isinstance(one, dict)]
    return [one for one in found if isinstance(one, dict) and "start" in one]  # choices and relations have no start


def are_spans(value: Any) -> bool:
    """Whether a column's value certainly is a list of spans."""
    return isinstance(value, list) and all(
        (isinstance(one, dict) and _first(one, _STARTS) is not None)
        or (isinstance(one, (list, tuple)) and len(one) == 3 and isinstance(one[2], str))
        for one in value
    )


def _span(entity: Any, text: str) -> Span:
    """Read one entity. Raises `NoSpan`."""
    written = f"entity {cut(repr(entity))}"
    if isinstance(entity, (list, tuple)) and len(entity) == 3:
        (start, end, label), said = entity, None
    elif isinstance(entity, dict):
        start, end, label = (_first(entity, names) for names in (_STARTS, _ENDS, _LABELS))
        said = entity.get("text")
    else:
        raise NoSpan(f"{written} is not [start, end, label] or a mapping")
    if isinstance(label, list) and len(label) > 1:
        raise NoSpan(f"{written} has {len(label)} labels; a word can have only one tag")
    label = label[0] if isinstance(label, list) and label else label
    if not isinstance(label, str) or not label.strip():
        raise NoSpan(f"{written} has no label")
    span = Span(_whole(start, written), _whole(end, written), label.strip())
    if isinstance(said, str) and said.split() != text[max(0, span.start) : max(0, span.end)].split():
        raise NoSpan(_misplaced(span, said, text))
    if not 0 <= span.start < span.end <= len(text):
        raise NoSpan(f"entity {cut(label)!r} runs from {span.start} to {span.end} in a text of {len(text)} characters")
    return span


def _first(entity: dict[str, Any], names: Sequence[str]) -> Any:
    return next((entity[name] for name in names if entity.get(name) is not None), None)


def _whole(value: Any, written: str) -> int:
    if type(value) is int or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise NoSpan(f"{written} has no start and end")


def _misplaced(span: Span, said: str, text: str) -> str:
    """Why a span does not have its text: many tools count UTF-16 units or bytes instead of characters."""
    found = f"entity {cut(said)!r} is not at {span.start} to {span.end}, where the text has "
    found += repr(cut(text[span.start : span.end]))
    for encoding, size, unit in (("utf-16-le", 2, "UTF-16 units, as JavaScript does,"), ("utf-8", 1, "bytes")):
        raw = text.encode(encoding)[span.start * size : span.end * size]
        if raw.decode(encoding, errors="ignore") == said:
            return f"{found}: the tool counts {unit} instead of characters"
    if text[span.start : span.end + 1] == said:
        return f"{found}: the tool gives the last character as end, not the position after it"
    return found


def _trimmed(span: Span, text: str) -> Span:
    """The span without spaces at its ends. Raises `NoSpan` where it contains nothing else."""
    words = list(_words(text, span.start, span.end))
    if not words:
        raise NoSpan(f"entity {span.label!r} from {span.start} to {span.end} contains no word")
    return Span(words[0][0], words[-1][1], span.label)


def _words(text: str, start: int, end: int) -> Iterator[Place]:
    return (word.span() for word in WORD.finditer(text, start, end))
