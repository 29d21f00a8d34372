"""Quoting of user data in messages: a bounded piece of it, with control characters made visible."""

from __future__ import annotations

import re
from collections.abc import Iterable

MOST_CHARACTERS = 100
"""Characters shown of one value."""
MOST_NAMES = 10
"""Names shown of one list."""
_MARGIN = 5
"""This many more names are shown in full: "and 2 more" says less than the two names."""
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that move the cursor or change the writing direction, and lone surrogates; not tab and line end."""


def quoted(value: object) -> str:
    """The `repr` of a value, cut after about 100 characters."""
    return clipped(repr(value))


def clipped(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text of at most `most` characters in full; a longer one as its beginning and its length."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def listed(names: Iterable[object]) -> str:
    """Names separated by commas: about ten of them, and how many more there are."""
    every = [clipped(str(name)) for name in names]
    if len(every) <= MOST_NAMES + _MARGIN:
        return ", ".join(every)
    return f"{', '.join(every[:MOST_NAMES])} and {len(every) - MOST_NAMES:,} more"


def visible(text: str) -> str:
    """A text that any terminal can show: control characters and lone surrogates as escapes, the layout unchanged."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
