"""Training settings as keys of the YAML: what the catalog declares, fixed under `training` or as dimensions."""

from __future__ import annotations

import dataclasses
from typing import Any

from hpo.config.keys import EXPONENT, Described, Group
from hpo.config.space_section import DIMENSION
from trainers.protocol.catalog import METHOD
from trainers.protocol.settings import ALIASES, FIELDS, MOST, Field

Schema = dict[str, Any]
_KINDS = {float: ["float", "choice"], int: ["int", "choice"], str: ["choice"], bool: ["choice"]}
"""Types of dimensions that a setting of each type may be."""
COMMON = ("log", "step", "when")
"""Keys that every dimension has alike: the schema has them once."""


def setting_schema(field: Field) -> Schema:
    """The JSON Schema of a setting's value, short of its help."""
    types = {float: ["number", "string"], int: ["integer", "string"], str: ["string"], bool: ["boolean"]}[field.type]
    null = ["null"] if field.default is None else []
    if field.choices:
        return {"enum": [*field.choices, *([None] if null else [])]}
    if field.is_list:
        names = {"minItems": 1, "items": {"type": "string", "pattern": "^[^,]+$"}}
        return {"type": ["string", "array", *null], "minLength": 1, **names}
    if field.is_mapping:
        number = {"type": "integer", **_bounds(field)}
        names = {"additionalProperties": number, "propertyNames": {"pattern": "^[^,=]+$"}, "minProperties": 1}
        return {"type": ["object", "string", *null], **names, "pattern": r"^[^,=]+=\d+(,[^,=]+=\d+)*$"}
    if field.type is str:
        return {"type": [*types, *null], **({"pattern": f"^({field.pattern})$"} if field.pattern else {})}
    exponent = {} if field.type is bool else {"pattern": EXPONENT}
    return {"type": [*types, *null], **_bounds(field), **exponent}


def dimension_schema(field: Field) -> Schema:
    """The JSON Schema of a dimension of `search_space`: a fixed value, or a mapping whose `type` fits the setting."""
    value = setting_schema(field)
    kinds = _KINDS[field.type]
    ends = {"type": ["number", "string"], **_bounds(field), "pattern": EXPONENT}
    shapes = {
        "type": {"enum": kinds},
        **{end: ends for end in ("low", "high") if len(kinds) > 1},
        "values": {"type": "array", "items": value, "minItems": 1, "uniqueItems": True},
    }
    keys = {key.name: {**key.schema(), **shapes.get(key.name, {})} for key in DIMENSION}
    kept = keys if len(kinds) > 1 else {name: keys[name] for name in ("type", "values", "when")}
    kept |= {name: {"$ref": f"#/$defs/{name}"} for name in kept if name in COMMON}
    mapping: Schema = {"type": "object", "properties": kept, "required": ["type"], "additionalProperties": False}
    is_choice = {"properties": {"type": {"const": "choice"}}}
    choice = {"required": ["values"], "properties": {n: False for n in kept if n in ("low", "high", "log", "step")}}
    interval = {"required": ["low", "high"], "properties": {"values": False}}
    return {"anyOf": [value, {**mapping, "if": is_choice, "then": choice, "else": interval}]}


def training_group() -> Group:
    """Schema of `training:`. It has every setting, and the names of TrainingArguments that stand for one."""
    settings = [_setting_key(field) for name, field in FIELDS.items() if "." not in name]
    nested = [_setting_key(field) for name, field in FIELDS.items() if "." in name]
    stopping = Group("early_stopping", None, "when a trial stops itself", keys=tuple(nested))
    aliases = [
        Described(a.name, None, f"`{a.canonical}` by the name of TrainingArguments: {a.help}",
                  described=setting_schema(dataclasses.replace(a.field, default=None)))
        for a in ALIASES.values()
    ]  # fmt: skip
    return Group("training", None, "settings that are not searched", keys=(*settings, stopping, *aliases))


def space_group() -> Group:
    """Schema of `search_space:`. It has every setting that can be a dimension, and the method."""
    fields = [METHOD, *(field for field in FIELDS.values() if field.searchable)]
    dimensions = [Described(f.name, None, f.help, described=dimension_schema(f)) for f in fields]
    return Group("search_space", None, "what is searched; empty, it is a single fine-tune", keys=tuple(dimensions))


def _setting_key(field: Field) -> Described:
    name = field.name.rpartition(".")[2]
    return Described(name, field.default, field.help, described=setting_schema(field))


def _bounds(field: Field) -> Schema:
    low = {"exclusiveMinimum": field.above} if field.above is not None else {"minimum": field.low}
    bounds = {**low, "maximum": MOST if field.high is None else min(field.high, MOST)}
    return {name: bound for name, bound in bounds.items() if bound is not None}
