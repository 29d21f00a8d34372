"""Markdown in which text of people stays text: no label breaks a table, none becomes a tag or a link. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hpo.quoting import clipped, visible

_SPECIAL = re.compile(r"[\\`*\[\]|~#$]|(?<!\w)_|_(?!\w)")
"""What Markdown may read as something else, wherever it stands; a `_` inside a word is only a letter."""
_AT_START = re.compile(r"^(?:([-+=])|(\d+)(?=[.)]))")
"""What makes a line that it begins a list or a heading."""
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
MOST_OF_A_TEXT = 2000
"""Characters shown of a text that a person wrote for the card."""


def plain(text: object, most: int = 100) -> str:
    """A text on one line, cut after about `most` characters, that is shown as it is."""
    line = " ".join(visible(clipped(str(text), most)).split())
    return "".join(_HTML.get(c, c) for c in _SPECIAL.sub(r"\\\g<0>", line))


def paragraphs(text: str) -> list[str]:
    """A text of several paragraphs, each shown as it is."""
    parts = re.split(r"\n\s*\n", clipped(text, MOST_OF_A_TEXT))
    return [f"{_AT_START.sub(_escaped, plain(part, MOST_OF_A_TEXT))}\n" for part in parts if part.strip()]


def _escaped(start: re.Match[str]) -> str:
    return f"{start[2]}\\" if start[2] else f"\\{start[1]}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose cells are any text; numbers are aligned to the right."""
    is_number = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    rule = ["---:" if numeric else "---" for numeric in is_number]
    body = [[plain(cell) for cell in row] for row in rows]
    lines = [[plain(column) for column in columns], rule, *body]
    return [*("| " + " | ".join(line) + " |" for line in lines), ""]


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"|-|[-+]?[0-9][0-9.,e+-]*( %|%)?", cell) is not None


def code(text: str, language: str = "") -> list[str]:
    """The lines of a block of code, in a fence that nothing in it closes."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", visible(text), fence, ""]


def front(values: Mapping[str, Any]) -> list[str]:
    """The lines of front matter: each value as JSON, which is YAML too."""
    lines = [f"{key}: {visible(json.dumps(value, ensure_ascii=False))}" for key, value in values.items()]
    return ["---", *lines, "---", ""]
