"""`training:`: every setting of a trial by the catalog's name or a name that TrainingArguments have for it."""

from __future__ import annotations

from collections.abc import Mapping

from hpo.config.aliases import resolve_aliases
from hpo.config.setting_values import refusal, typed
from hpo.config.yaml_source import Section
from trainers.protocol.settings import FIELDS, Field, Setting


def parse_training(root: Section, fields: Mapping[str, Field], method: str) -> dict[str, Setting]:
    """Read `training:`: the settings that the file gives, by their dotted names. `method` reads `fields` only."""
    section = root.section("training")
    nested = section.section("early_stopping")
    given: dict[str, Setting] = {}
    for name, field in fields.items():
        parent, _, leaf = name.rpartition(".")
        owner = nested if parent else section
        value = owner.raw(leaf)
        if leaf not in owner:
            continue
        if why := refusal(owner, leaf, field):
            owner.got(value, why, leaf)
        else:
            given[name] = typed(field, value)
    given |= {name: typed(FIELDS[name], value) for name, value in resolve_aliases(section).items()}
    for name in section.names():
        if name in FIELDS and name not in fields:
            section.raw(name)
            section.problem(f"is not a setting of method {method}", "remove it", name)
    nested.finish()
    section.finish()
    return given
