"""Opens text files in UTF-8, or in UTF-16 and UTF-32 with a byte order mark, as spreadsheets save "Unicode text"."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from trainers.data.formats.base import refused

MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, because it begins with UTF-16's mark
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""Byte order marks and their encodings."""
PEEKED = 4096
"""Bytes that are checked before a file is read."""


@contextmanager
def opened(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """Open a file as text, without its byte order mark.

    Raises `DataProblem` with the first line that is not text.
    """
    mark, encoding = _encoding(path)
    try:
        with path.open(encoding=encoding, newline=newline) as file:
            file.read(1 if mark else 0)
            yield file
    except UnicodeDecodeError as error:
        found, expected = f"is not {encoding[:6].upper().rstrip('-')} text", "save it as UTF-8"
        raise refused(f"{path}:{_undecodable_line(path, encoding)}", found, expected) from error


def has_mark(path: Path) -> bool:
    """Whether a file begins with a byte order mark."""
    return _mark(_beginning(path)) != b""


def _encoding(path: Path) -> tuple[bytes, str]:
    """The byte order mark of a file, if it has one, and its encoding."""
    beginning = _beginning(path)
    mark = _mark(beginning)
    if not mark and beginning.count(0) * 4 > len(beginning):  # in UTF-16 each Latin letter has a zero byte
        found = "is not UTF-8 text: it looks like UTF-16 without a byte order mark"
        raise refused(f"{path}:1", found, "save it as UTF-8, or as UTF-16 with a byte order mark")
    return mark, MARKS.get(mark, "utf-8")


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(PEEKED)


def _mark(beginning: bytes) -> bytes:
    return next((mark for mark in MARKS if beginning.startswith(mark)), b"")


def _undecodable_line(path: Path, encoding: str) -> int:
    """The first line that is not text, from 1."""
    whole = path.read_bytes()
    try:
        whole.decode(encoding)
    except UnicodeDecodeError as error:
        return whole[: error.start].decode(encoding).count("\n") + 1
    raise ValueError(f"{path} is text")
