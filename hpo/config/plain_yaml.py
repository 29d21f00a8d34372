"""Plain values as YAML, for people to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


def as_yaml(values: Mapping[str, Any]) -> str:
    """The values in their own order; a line for each, however long."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=1 << 20)
