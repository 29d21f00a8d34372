"""Running text in passages: where one begins is decided by its first line alone, so that text can grow around it"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from trainers.data.sides import Input, hash_of

PASSAGE = 4000
"""Characters that a passage has on average."""
OPENING = 500
"""Characters by which the beginning of a document is recognised: its first line alone may be that of many."""


@dataclass(frozen=True)
class Passage:
    """A part of a document, from the beginning of one line to the beginning of another."""

    text: str
    input: Input


def passages(document: str) -> Iterator[Passage]:
    """The passages of a document, which together are its text.

    Text that is added at the end changes no passage but the last one, which stays recognised. A line begins a passage
    more likely the longer it is, so that passages are about as long whatever the lines are.
    """
    start, place = 0, 0
    for line in document.splitlines(keepends=True):
        if start < place and _begins(line):
            yield _passage(document[start:place], is_first=start == 0)
            start = place
        place += len(line)
    yield _passage(document[start:], is_first=start == 0)


def _begins(line: str) -> bool:
    drawn = hashlib.sha256(f"passage {line.strip()}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(drawn[:8], "big") < len(line.strip()) / PASSAGE * (1 << 64)


def _passage(text: str, *, is_first: bool) -> Passage:
    if not is_first:
        return Passage(text, Input(hash_of(("line", text.splitlines()[0].strip()))))
    opening = text[:OPENING].strip()
    lines = opening.splitlines(keepends=True)
    shorter = ("".join(lines[:count]).strip() for count in range(1, len(lines)))
    return Passage(text, Input(_of_opening(opening), tuple(_of_opening(one) for one in shorter if one)))


def _of_opening(text: str) -> str:
    return hash_of(("opening", text))
