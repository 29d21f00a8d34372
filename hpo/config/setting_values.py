"""A value from YAML as a setting has it, or why it cannot be one."""

from __future__ import annotations

from typing import Any

from hpo.config.dimensions import is_number
from hpo.config.yaml_source import Section
from trainers.protocol.settings import Field, Setting, mapping_text


def refusal(section: Section, key: str, field: Field) -> str | None:
    """Why the value of `key` cannot be this setting, or None; null may be its default, no value at all never is."""
    return field.refuse(section.raw(key)) or (f"expected {field.describe()}" if section.is_empty(key) else None)


def typed(field: Field, value: Any) -> Setting:
    """A value as its field has it: `1` is 1.0 where numbers are meant, so that equal trials look equal; `1e5` may be a
    whole number."""
    if field.is_list and isinstance(value, (list, str)):
        return ",".join(name.strip() for name in (value.split(",") if isinstance(value, str) else value))
    if field.is_mapping and isinstance(value, dict):
        return mapping_text(value)
    if field.type is int and isinstance(value, float):
        return int(value)
    return float(value) if field.type is float and is_number(value) else value
