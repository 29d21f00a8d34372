"""Running text: documents in order, of which the end is held out instead of scattered lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainers.data.sources import Row
from trainers.data.splits import Placed


@dataclass(frozen=True)
class Text:
    """A plain text, or a part of one."""

    text: str
    is_whole: bool = True
    """Whether it reaches the end of its document."""


def cut_off_end(rows: Sequence[Placed[Text]], size: float) -> tuple[list[Placed[Text]], list[Placed[Text]]]:
    """Split off the end of running text: (rest, end).

    Below 1, `size` is a share of the characters; else it is a number of documents. A document in which the cut falls is
    split at the end of a line, or else between two words.
    """
    if size >= 1:
        at = max(0, len(rows) - int(size))
        return list(rows[:at]), list(rows[at:])
    wanted = round(size * sum(len(row.example.text) for row in rows))
    rest, held = list(rows), list[Placed[Text]]()
    while rest and wanted >= len(rest[-1].example.text) > 0:
        held.insert(0, rest.pop())
        wanted -= len(held[0].example.text)
    if rest and wanted > 0:
        parts = _parted(rest.pop(), wanted)
        rest += parts[:1]
        held = [*parts[1:], *held]
    return rest, held


def _parted(row: Placed[Text], wanted: int) -> list[Placed[Text]]:
    """A document split about `wanted` characters before its end; not split where it has no space.

    A line may be very long: its end counts only where it is near.
    """
    text = row.example.text
    at = len(text) - wanted
    line, word = (_nearest(text, border, at) for border in "\n ")
    if not (line or word):
        return [row]
    is_near = line and abs(line - at) <= wanted / 2
    end = line if is_near else min(filter(None, (line, word)), key=lambda place: abs(place - at))
    first, second = Text(text[:end], is_whole=False), Text(text[end:], row.example.is_whole)
    return [replace(row, example=first), replace(row, example=second, row=_later(row.row, text[:end].count("\n")))]


def _nearest(text: str, border: str, at: int) -> int:
    """The place after the `border` that is nearest to `at`; 0 where there is none inside the text."""
    places = (text.rfind(border, 0, at) + 1, text.find(border, at) + 1)
    return min((p for p in places if 0 < p < len(text)), key=lambda place: abs(place - at), default=0)


def _later(row: Row, lines: int) -> Row:
    """The row with its place moved down by `lines`."""
    file, _, line = row.where.rpartition(":")
    return replace(row, where=f"{file}:{int(line) + lines}") if line.isdigit() else row
