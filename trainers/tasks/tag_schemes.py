"""How tags write entities: what training rows use is found from all their tags, and becomes IOB2. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_PREFIXED = re.compile(r"([BIESLUMW])-(.+)", re.DOTALL)
_IN_IOB2 = {"B": "B", "I": "I", "E": "I", "L": "I", "M": "I", "S": "B", "U": "B", "W": "B"}
"""A word's part in an entity: begin; inside (also its end, last, middle); alone (single, unit, whole)."""
_NAMES = {"I": "IO", "BI": "IOB", "BIES": "IOBES", "BILU": "BILOU", "BMES": "BMES", "BMEW": "BMEWO"}
OUTSIDE = "O"


@dataclass(frozen=True)
class Scheme:
    """One way of tagging."""

    name: str
    """Empty for plain tags, each of which says something about its word alone."""

    @property
    def is_converted(self) -> bool:
        return self.name not in ("", "IO", "IOB")

    def read(self, tag: str) -> str | None:
        """A tag as it is learned; None for one that is none of this scheme."""
        if not self.name or tag == OUTSIDE:
            return tag
        found = _PREFIXED.fullmatch(tag)
        return f"{_IN_IOB2[found[1]]}-{found[2]}" if found else None


def scheme_of(tags: Collection[str]) -> Scheme:
    """The scheme of all tags that training rows have.

    One tag that begins with B- or I- makes it entities: a tag without a prefix beside it is a slip, for no list of
    plain tags has such names.
    """
    found = [match for tag in tags if (match := _PREFIXED.fullmatch(tag))]
    prefixes = {match[1] for match in found}
    others = {tag for tag in tags if tag != OUTSIDE and not _PREFIXED.fullmatch(tag)}
    is_sure = bool(prefixes & {"B", "I"}) or (bool(found) and not others and OUTSIDE in tags)
    if not is_sure:
        return Scheme("")
    fitting = [name for letters, name in _NAMES.items() if prefixes <= set(letters)]
    return Scheme(fitting[0] if fitting else "entities")
