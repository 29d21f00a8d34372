"""The YAML at the top of a model's or data set's README, as the hub writes it; a README without one says nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 1 << 16
"""Of a README that are read: its front matter is at the top."""
_BETWEEN = re.compile(r"\A(?:\ufeff)?---[ \t]*\r?\n(.*?\n)---[ \t]*\r?\n", re.DOTALL)


def front_matter(readme: Path) -> dict[str, Any]:
    """The values by their keys; empty where there is no such file, or no YAML at its top."""
    try:
        with readme.open("rb") as file:
            text = file.read(MOST_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return {}
    if (found := _BETWEEN.match(text)) is None:
        return {}
    try:
        values = yaml.safe_load(found[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
