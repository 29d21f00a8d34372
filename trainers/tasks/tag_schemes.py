"""Schemes of tags for entities: recognizes the scheme from all tags of the training rows and converts it to IOB2.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_PREFIXED = re.compile(r"([BIESLUMW])-(.+)", re.DOTALL)
_IN_IOB2 = {"B": "B", "I": "I", "E": "I", "L": "I", "M": "I", "S": "B", "U": "B", "W": "B"}
"""Prefix -> its IOB2 prefix: begin; inside (also end, last, middle); alone (single, unit, whole)."""
_NAMES = {"I": "IO", "BI": "IOB", "BIES": "IOBES", "BILU": "BILOU", "BMES": "BMES", "BMEW": "BMEWO"}
OUTSIDE = "O"


@dataclass(frozen=True)
class Scheme:
    """One scheme of tags."""

    name: str
    """Empty for plain tags, each of which describes only its own word."""

    @property
    def is_converted(self) -> bool:
        """Whether tags are converted to IOB2."""
        return self.name not in ("", "IO", "IOB")

    def read(self, tag: str) -> str | None:
        """A tag as it is learned; None for a tag that is not in this scheme."""
        if not self.name or tag == OUTSIDE:
            return tag
        found = _PREFIXED.fullmatch(tag)
        return f"{_IN_IOB2[found[1]]}-{found[2]}" if found else None


def scheme_of(tags: Collection[str]) -> Scheme:
    """The scheme of all tags in the training rows.

    One tag that begins with B- or I- is enough for a scheme of entities, because no plain tags have such names. Another
    tag without a prefix is then a mistake.
    """
    found = [match for tag in tags if (match := _PREFIXED.fullmatch(tag))]
    prefixes = {match[1] for match in found}
    others = {tag for tag in tags if tag != OUTSIDE and not _PREFIXED.fullmatch(tag)}
    is_sure = bool(prefixes & {"B", "I"}) or (bool(found) and not others and OUTSIDE in tags)
    if not is_sure:
        return Scheme("")
    fitting = [name for letters, name in _NAMES.items() if prefixes <= set(letters)]
    return Scheme(fitting[0] if fitting else "entities")
