"""Metric names that MLflow takes, one to one: labels hold characters and paths that it refuses. Pure.

What MLflow refuses becomes `_xHEX_`, the character's number in hexadecimal: `f1/C#` is `f1/C_x23_`. A name that is too
long is cut and ends in `_xHASH_`. A name that MLflow takes stays, unless it looks like one of these itself.
"""

from __future__ import annotations

import hashlib
import re

LONGEST = 250
"""Characters that MLflow allows in a name."""
_HASH_DIGITS = 32

# MLflow takes letters, digits and _ . - : / and blanks, where the name is also a path in its shortest form.
_ESCAPED = re.compile(
    r"[^\w./ :-]"  # what it has no room for
    r"|^/|/(?=/|\Z)"  # an empty part of the path
    r"|(?<![^/])\.(?=\.?(?:/|\Z))|^\.(?=\.)"  # the parts . and .., and a name that begins with ..
    r"|_(?=x[0-9a-f]*+(?![g-zA-Z ]))"  # what would read as an escape
)


def safe_name(name: str) -> str:
    """`name` as MLflow takes it; different names stay different."""
    safe = _ESCAPED.sub(lambda found: f"_x{ord(found[0]):x}_", name) if name else "_x_"
    if len(safe) <= LONGEST:
        return safe
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
    return f"{safe[: LONGEST - _HASH_DIGITS - 3]}_x{digest}_"
