"""Texts of `.txt` files: the whole file, its paragraphs, its lines, or the parts between separators."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from trainers.data.formats.base import Entry, Reading, Row
from trainers.data.formats.text_files import opened
from trainers.protocol.events import Finding

BETWEEN_PARAGRAPHS = r"(?:\A|\n)(?:[^\S\n]*\n)+|\n\Z"
"""One or more empty lines, or the end of the last line."""


def read(path: Path, reading: Reading) -> Iterator[Entry]:
    """The texts of a file, each with its first line; line ends become "\\n", and nothing else changes."""
    with opened(path) as file:
        if reading.documents == "line":
            yield from _lines(path, file)
        elif reading.documents == "file":
            yield _text(file.read(), f"{path}:1") or [
                Finding(f"{path}:1", "contains no text", "text, or remove the file")
            ]
        else:
            yield from _parted(path, file.read(), _border(reading.documents))


def _border(documents: str) -> re.Pattern[str]:
    """The pattern between two texts; a separator includes the end of its line and of the line before."""
    if documents == "paragraph":
        return re.compile(BETWEEN_PARAGRAPHS)
    return re.compile(rf"\n?{re.escape(documents)}\n?")


def _lines(path: Path, lines: Iterator[str]) -> Iterator[Entry]:
    for number, line in enumerate(lines, 1):
        if entry := _text(line.strip(), f"{path}:{number}"):
            yield entry


def _parted(path: Path, whole: str, border: re.Pattern[str]) -> Iterator[Entry]:
    line, start = 1, 0
    for end, after in [*(match.span() for match in border.finditer(whole)), (len(whole), len(whole))]:
        if entry := _text(whole[start:end], f"{path}:{line}"):
            yield entry
        line += whole.count("\n", start, after)
        start = after


def _text(text: str, where: str) -> Entry | None:
    """A text as a row; None where it is blank."""
    if "\0" in text:
        return [Finding(where, "contains a NUL character", "text: is it a binary file?")]
    return Row(where, {"text": text}, is_document=True) if text.strip() else None
