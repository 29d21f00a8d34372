"""Tagged words, one per line: CoNLL files and similar ones (`.conll`, `.bio`, `.iob`, `.iob2`), and CoNLL-U.

A line has a word first and its tag last, separated by spaces or tabs; an empty line ends a sentence. CoNLL-U has ten
columns: the first counts words, the second is the word and the fourth its part of speech.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainers.data.formats.base import Entry, Reading, Row, refused
from trainers.data.formats.text_files import opened
from trainers.protocol.counted import counted
from trainers.protocol.events import Finding

_DOCUMENT = re.compile(r"-DOCSTART-(\s|$)|#\s?(begin|end) document\b")
_BLANKS = re.compile(r"[ \t]+")
"""The space between columns; a no-break space is part of a word."""
_NO_WORD = re.compile(r"\d+[-.]\d+")
"""Numbers in CoNLL-U that are not words: `1-2` stands for the next two words, `1.1` for a word outside of the text."""
_COMMENT = re.compile("#( |$)")
"""The beginning of a comment before a sentence. The word `#` looks so too, but has all columns and a known tag."""
CONLL_U_COLUMNS = 10


@dataclass(frozen=True)
class Line:
    """A line of the file with its columns; `number` counts from 1."""

    number: int
    columns: list[str]


@dataclass(frozen=True)
class Layout:
    """The columns of word and tag, and the number of all columns."""

    width: int
    word: int = 0
    tag: int = -1
    has_numbers: bool = False

    @property
    def expected(self) -> str:
        """What a finding says would be right."""
        return f"expected {self.width}: " + (
            "a number first, then the word" if self.has_numbers else "the word first, its tag last"
        )


def read(path: Path, reading: Reading) -> Iterator[Entry]:
    """A row of `words` and `tags` for each sentence, placed at the line of its first word.

    The layout of most lines applies to all lines. Raises `DataProblem` where the first column counts words and the
    column of the tags is unknown.
    """
    with opened(path) as file:
        lines = [line.rstrip(" \t\n") for line in file]
    if _is_a_sentence_a_line(lines):
        yield from _inline(path, lines)
        return
    sentences = list(_sentences(lines))
    layout = _layout(path, sentences)
    for sentence in sentences:
        words = [line for line in sentence if not (layout.has_numbers and _NO_WORD.fullmatch(line.columns[0]))]
        wrong = [finding for line in words if (finding := _wrong(path, line, layout))]
        yield wrong or Row(f"{path}:{sentence[0].number}", _values(words, layout))


def _values(lines: Sequence[Line], layout: Layout) -> dict[str, list[str]]:
    words, tags = ([line.columns[column] for line in lines] for column in (layout.word, layout.tag))
    return {"words": words, "tags": tags}


def _wrong(path: Path, line: Line, layout: Layout) -> Finding | None:
    where, count = f"{path}:{line.number}", len(line.columns)
    if "\0" in line.columns[0]:
        return Finding(where, "contains a NUL character", "text")
    if count != layout.width:
        return Finding(where, f"has {counted(count, 'column')}", layout.expected)
    return None


def _sentences(lines: Sequence[str]) -> Iterator[list[Line]]:
    """Yield the word lines between empty lines, without comments and marks of documents."""
    by_tabs = _is_parted_by_tabs(lines)
    columns = [line.split("\t") if by_tabs else _BLANKS.split(line.lstrip(" \t")) for line in lines]
    filled = [cells for cells, line in zip(columns, lines, strict=True) if line]
    width = _most(filled)
    tags = {cells[-1] for cells, line in zip(columns, lines, strict=True) if not _COMMENT.match(line)}
    sentence: list[Line] = []
    for number, (line, cells) in enumerate(zip([*lines, ""], [*columns, []], strict=True), 1):
        if not line or _DOCUMENT.match(line):
            if sentence:
                yield sentence
            sentence = []
        elif sentence or not _COMMENT.match(line) or (len(cells) == width and cells[-1] in tags):
            sentence.append(Line(number, cells))


def _is_parted_by_tabs(lines: Sequence[str]) -> bool:
    """Whether tabs separate columns, so that a word may contain spaces."""
    words = [line for line in lines if line and not line.startswith("#") and not _DOCUMENT.match(line)]
    return sum("\t" in line for line in words) * 2 > len(words)


def _most(rows: Sequence[Sequence[str]]) -> int:
    """The most frequent number of columns; the larger one of two that are equally frequent."""
    counts = Counter(len(row) for row in rows)
    return max(counts, key=lambda width: (counts[width], width), default=0)


def _layout(path: Path, sentences: Sequence[Sequence[Line]]) -> Layout:
    width = _most([line.columns for sentence in sentences for line in sentence])
    is_numbered = sum(map(_is_numbered, sentences)) * 2 > len(sentences)
    if width < 3 or not (is_numbered or path.suffix.lower() == ".conllu"):
        return Layout(max(2, width))
    if width == CONLL_U_COLUMNS:
        return Layout(width, word=1, tag=3, has_numbers=True)
    if width == 3:
        return Layout(width, word=1, tag=2, has_numbers=True)
    found = f"has {width} columns, and the first one counts words: the column of the tags is unknown"
    raise refused(path, found, "expected the word first and its tag last, or the ten columns of CoNLL-U")


def _is_numbered(sentence: Sequence[Line]) -> bool:
    """Whether the first column counts 1, 2, 3, ..."""
    counted = [line.columns[0] for line in sentence if not _NO_WORD.fullmatch(line.columns[0])]
    return counted == [str(number) for number in range(1, len(counted) + 1)] and bool(counted)


def _is_a_sentence_a_line(lines: Sequence[str]) -> bool:
    """Whether it is spaCy's `.iob`: `Ada|B-PER wrote|O`, or with a part of speech between."""
    words = list(itertools.chain.from_iterable(line.split() for line in lines))
    return len(words) > 0 and all(0 < word.count("|") < 3 for word in words) and any(" " in line for line in lines)


def _inline(path: Path, lines: Sequence[str]) -> Iterator[Entry]:
    for number, line in enumerate(lines, 1):
        if line:
            parts = [word.split("|") for word in line.split()]
            yield Row(f"{path}:{number}", {"words": [part[0] for part in parts], "tags": [part[-1] for part in parts]})
