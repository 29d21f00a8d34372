"""A text with all variants of a letter made equal, so that spelling it another way hides nothing; places are kept."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufdd0\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
)
"""Characters that show nothing (Unicode's Default_Ignorable_Code_Point), and those that tokenizers leave out: controls,
and the one that `trainers/runtime/control_tokens.py` takes for itself."""
_FIRST_THAT_JOINS = "\u0300"
"""No character before it becomes one with the character on its left."""
_STANDS_ALONE = re.compile("[\u3100-\ua6ff\uac00-\ud7a3]")
"""Chinese characters and whole Hangul syllables, for speed: they join nothing on their left."""
_PLAIN = re.compile(r"[\t-\r\x1c-~]+")
_RUN = re.compile(rf"{_PLAIN.pattern}|.", re.DOTALL)
_LONGEST_PIECE = 32
"""Normalizing takes the square of the marks on one letter; real text has a few (UAX #15, stream-safe text)."""


@dataclass(frozen=True)
class Folded:
    """A folded text; each of its characters knows the piece of the original that it comes from."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The place in the original of a part that is not empty."""
        return self.starts[start], self.ends[end - 1]


def folded(text: str) -> Folded:
    """NFKC and case folding, without characters that show nothing: full-width, composed or split by a zero-width space,
    a word is the same."""
    if text.isascii() and not _UNSEEN.search(text):
        return Folded(text.lower(), range(len(text)), range(1, len(text) + 1))
    letters: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for start, end, piece in _pieces(text):
        if _PLAIN.fullmatch(piece):
            equal = piece.lower()
            starts += range(start, end)
            ends += range(start + 1, end + 1)
        else:
            equal = _without_strokes(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", piece).casefold()))
            starts += [start] * len(equal)
            ends += [end] * len(equal)
        letters.append(equal)
    return Folded("".join(letters), starts, ends)


def _without_strokes(piece: str) -> str:
    """Without marks over, under and across a letter that make no other letter of it; those of Hindi, say, stay."""
    if piece.isascii():
        return piece
    return "".join(
        letter for letter in piece if not (unicodedata.combining(letter) == 1 or unicodedata.combining(letter) >= 200)
    )


def _pieces(text: str) -> list[tuple[int, int, str]]:
    """The parts of a text that can be normalized one by one, with start and end: a letter with its marks, or a run of
    plain letters."""
    pieces: list[tuple[int, int, str]] = []
    for found in _RUN.finditer(text):
        run, place = found[0], found.start()
        if len(run) > 1:  # what comes next may join its last letter
            pieces.append((place, found.end() - 1, run[:-1]))
            run, place = run[-1], found.end() - 1
        if _UNSEEN.match(run):
            continue
        if pieces and _joins(pieces[-1][2], run):
            start, _, piece = pieces[-1]
            pieces[-1] = (start, place + 1, piece + run)
        else:
            pieces.append((place, place + 1, run))
    return pieces


def _joins(piece: str, letter: str) -> bool:
    if letter < _FIRST_THAT_JOINS or _STANDS_ALONE.match(letter) or len(piece) >= _LONGEST_PIECE:
        return False
    if unicodedata.combining(unicodedata.normalize("NFKC", letter)[0]):  # also a mark of half width, which has no class
        return True
    together = unicodedata.normalize("NFKC", piece + letter)  # parts of a Hangul syllable, say
    return together != unicodedata.normalize("NFKC", piece) + unicodedata.normalize("NFKC", letter)
