"""Training settings by the names of transformers' TrainingArguments, turned into ours where the file is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpo.config.setting_values import typed
from hpo.config.yaml_source import Section
from hpo.quoting import quoted
from trainers.protocol.settings import ALIASES, FIELDS, UNNEEDED, Alias


def as_written(training: Mapping[str, Any]) -> dict[str, str]:
    """Every setting that `training:` gives, by our name -> the key that the file has for it."""
    given = [key for key, value in training.items() if value is not None]
    return {ALIASES[key].canonical if key in ALIASES else key: key for key in given}


def resolve_aliases(section: Section) -> dict[str, Any]:
    """What `training:` gives by other names, by ours. Problems name the key as the file has it."""
    for name, why in UNNEEDED.items():
        if name in section:
            section.raw(name)
            section.problem("is not needed", why, name)
    given = {name: alias for name, alias in ALIASES.items() if section.optional(name) is not None}
    resolved: dict[str, Any] = {}
    said_by: dict[str, str] = {}
    for name, alias in given.items():
        if refused := alias.field.refuse(value := section.raw(name)):
            section.got(value, refused, name)
            continue
        value = typed(alias.field, value)
        if alias.times:
            _multiply(section, alias, int(value or 1), resolved)
        elif section.raw(alias.canonical) is not None:
            section.problem(f"{alias.canonical} is given too", "they are the same: expected one of them", name)
        elif alias.meanings is None or value in alias.meanings:
            if alias.canonical in said_by:
                found = f"{said_by[alias.canonical]} and {name} conflict: both set {alias.canonical}"
                section.problem(found, "expected one of them", name)
            resolved[alias.canonical] = value if alias.meanings is None else alias.meanings[value]
            said_by[alias.canonical] = name
    return resolved


def _multiply(section: Section, alias: Alias, value: int, resolved: dict[str, Any]) -> None:
    """`value` times another setting; that must be given, and a product that is given too must be the same."""
    other = resolved.get(alias.times, section.raw(alias.times))
    if FIELDS[alias.times].refuse(other):
        names = " or ".join([*(a.name for a in ALIASES.values() if a.canonical == alias.times), alias.times])
        found = f"{alias.canonical} is this times {alias.times}, which is not given"
        section.problem(found, f"give {names} too, or {alias.canonical} instead", alias.name)
        return
    product, wanted = value * int(other), section.raw(alias.canonical)
    if why := FIELDS[alias.canonical].refuse(product):
        section.problem(f"{value} times {other} makes {alias.canonical} {product}", why, alias.name)
    elif wanted is not None and wanted != product:
        found = f"{value} times {other} is {product}, but {alias.canonical} is {quoted(wanted)}"
        section.problem(found, "expected one of them", alias.name)
    else:
        resolved[alias.canonical] = product
