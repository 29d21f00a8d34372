"""What a message quotes of other people's text: a bounded piece of it, with control characters made visible."""

from __future__ import annotations

import re
from collections.abc import Iterable

MOST_CHARACTERS = 100
"""Of one value."""
MOST_NAMES = 10
"""Of one list."""
_MARGIN = 5
"""So many more names are listed all the same: "and 2 more" says less than the two names."""
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves the cursor, turns the direction of writing, or is no character: all but tab and line end."""


def quoted(value: object) -> str:
    """A value as Python writes it, cut after about 100 characters."""
    return clipped(repr(value))


def clipped(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text, or its beginning and how long it is."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def listed(names: Iterable[object]) -> str:
    """Names between commas: about ten of them, and how many more there are."""
    every = [clipped(str(name)) for name in names]
    if len(every) <= MOST_NAMES + _MARGIN:
        return ", ".join(every)
    return f"{', '.join(every[:MOST_NAMES])} and {len(every) - MOST_NAMES:,} more"


def visible(text: str) -> str:
    """A text that any terminal can show: control characters and half characters as escapes, layout as it is."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
