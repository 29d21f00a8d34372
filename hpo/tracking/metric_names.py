"""Metric names that MLflow accepts, one to one: labels may contain characters and paths that it refuses. Pure.

A character that MLflow refuses becomes `_xHEX_`, its number in hexadecimal: `f1/C#` becomes `f1/C_x23_`. A name that is
too long is cut and ends in `_xHASH_`. A name that MLflow accepts stays the same, unless it looks like such an escape.
"""

from __future__ import annotations

import hashlib
import re

LONGEST = 250
"""Characters that MLflow allows in a name."""
_HASH_DIGITS = 32

# MLflow accepts letters, digits, spaces and _ . - : / in a name that is also a normalized path.
_ESCAPED = re.compile(
    r"[^\w./ :-]"  # other characters
    r"|^/|/(?=/|\Z)"  # an empty part of the path
    r"|(?<![^/])\.(?=\.?(?:/|\Z))|^\.(?=\.)"  # the parts . and .., and a name that begins with ..
    r"|_(?=x[0-9a-f]*+(?![g-zA-Z ]))"  # text that looks like an escape
)


def safe_name(name: str) -> str:
    """The name in a form that MLflow accepts; different names stay different."""
    safe = _ESCAPED.sub(lambda found: f"_x{ord(found[0]):x}_", name) if name else "_x_"
    if len(safe) <= LONGEST:
        return safe
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
    return f"{safe[: LONGEST - _HASH_DIGITS - 3]}_x{digest}_"
