"""`search_space:` in YAML: its keys, and the space that they describe.

A dimension is checked against the catalog's field, so a space cannot hold a value that a trial would refuse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hpo.config.dimensions import Choice, Dimension, Float, Int, is_number
from hpo.config.keys import EXPONENT, Described, Flag, OneOf
from hpo.config.setting_values import refusal, typed
from hpo.config.space import Condition, SearchSpace
from hpo.config.yaml_source import Section
from hpo.errors import did_you_mean
from hpo.quoting import listed
from trainers.protocol.catalog import METHOD
from trainers.protocol.settings import ALIASES, FIELDS, MOST, Field, Setting

MOST_STEPS = 1_000_000
"""Of a dimension of floats: with more of them a step says nothing."""
KINDS = ("float", "int", "choice")
SEARCHABLE = (METHOD.name, *(field.name for field in FIELDS.values() if field.searchable))
LOG = Flag("log", False, "`float`, `int`: spread the values over their logarithm; not with `step`")
DIMENSION = (
    OneOf("type", "", "`float` is any number, `int` a whole number, `choice` one of a few values", choices=KINDS,
          is_required=True),
    Described("low", None, "`float`, `int`: the smallest value, itself included", shown="required", described={}),
    Described("high", None, "`float`, `int`: the largest value, itself included", shown="required", described={}),
    LOG,
    Described("step", None, "`float`, `int`: distance from one value to the next, from `low` on",
              described={"type": ["number", "string", "null"], "exclusiveMinimum": 0, "maximum": MOST,
                         "pattern": EXPONENT}),
    Described("values", None, "`choice`: a list of values, each once", shown="required", described={}),
    Described("when", None,
              "the dimension exists only where another one has this value, e.g. `{method: lora}`, or one of `[a, b]`",
              described={"type": "object", "minProperties": 1, "propertyNames": {"enum": list(SEARCHABLE)}}),
)  # fmt: skip
"""Keys of a dimension; what `low`, `high` and `values` may be follows from its setting."""


def parse_space(section: Section, fields: Mapping[str, Field]) -> SearchSpace:
    """Read `search_space:`. `fields` are those that a trial may read; problems go to the section."""
    dimensions: dict[str, Dimension] = {}
    conditions: dict[str, Condition] = {}
    for name in section.names():
        field = fields.get(name)
        if field is None or not field.searchable:
            _refuse_name(section, name, fields)
        elif not isinstance(value := section.raw(name), dict) or (field.is_mapping and "type" not in value):
            if fixed := _parse_fixed(section, name, value, field):
                dimensions[name] = fixed
        else:
            below = section.section(name)
            condition = _parse_condition(below, section)
            if dimension := _parse_dimension(below, field):
                dimensions[name] = dimension
                if condition:
                    conditions[name] = condition
    conditions = _checked_conditions(section, dimensions, conditions)
    return SearchSpace(_by_dependence(section, dimensions, conditions), conditions)


def _parse_fixed(section: Section, name: str, value: Any, field: Field) -> Choice | None:
    """`lora_r: 8`: a dimension of one value."""
    if isinstance(value, list):
        section.got(value, "expected a value, or {type: choice, values: [...]}", name)
    elif why := refusal(section, name, field):
        section.got(value, why, name)
    else:
        return Choice((typed(field, value),))
    return None


def _parse_condition(below: Section, space: Section) -> Condition:
    """`when: {method: lora}` or `when: {method: [lora, dora]}`; empty where there is none."""
    condition: dict[str, tuple[Setting, ...]] = {}
    given, when = below.raw("when"), below.section("when")
    if "when" in below and not given and isinstance(given, dict | None):
        when.problem("is empty", "expected another dimension and its value, e.g. {method: lora}")
    for other in when.names():
        value = when.raw(other)
        if other not in space:
            when.problem("is not a dimension", did_you_mean(other, space.names()), other)
        elif value == []:
            when.problem("got []", f"expected the values of {other} for which this dimension exists", other)
        condition[other] = tuple(value) if isinstance(value, list) else (value,)
    return condition


def _checked_conditions(
    section: Section, dimensions: Mapping[str, Dimension], conditions: Mapping[str, Condition]
) -> dict[str, Condition]:
    """The conditions with each value as its dimension spells it: 0.3 may be 0.1 + 2 * 0.1 there."""

    def checked(name: str, other: str, given: Setting) -> Setting:
        if (dimension := dimensions.get(other)) is None:  # reported already
            return given
        field = FIELDS.get(other)
        value = given if field is None or field.refuse(given) else typed(field, given)
        if not dimension.contains(value):
            section.got(given, f"{other} is {dimension.describe()}", name, "when", other)
            return value
        if isinstance(dimension, Float) and dimension.step is None and dimension.low < dimension.high:
            found = f"{other} is any number from {dimension.low:g} to {dimension.high:g}: hardly a trial has this one"
            section.problem(found, f"give {other} a step, or type: choice", name, "when", other)
        return dimension.nearest(value)

    return {
        name: {other: tuple(checked(name, other, v) for v in values) for other, values in condition.items()}
        for name, condition in conditions.items()
    }


def _by_dependence(
    section: Section, dimensions: Mapping[str, Dimension], conditions: Mapping[str, Condition]
) -> dict[str, Dimension]:
    """The dimensions in the order of the YAML, but each after those that its condition names."""
    ordered: dict[str, Dimension] = {}
    waiting = dict(dimensions)
    while waiting:
        ready = [n for n in waiting if not any(other in waiting for other in conditions.get(n, {}))]
        if not ready:
            section.problem("depends on itself", "conditions must not go in a circle", next(iter(waiting)), "when")
            return dict(dimensions)
        ordered[ready[0]] = waiting.pop(ready[0])
    return ordered


def _refuse_name(section: Section, name: str, fields: Mapping[str, Field]) -> None:
    section.raw(name)
    searchable = [f.name for f in fields.values() if f.searchable]
    if name in fields:
        section.problem("cannot be searched", f"set it under training; searchable: {listed(searchable)}", name)
    elif name in FIELDS:
        section.problem("is not a setting of this method", f"searchable: {listed(searchable)}", name)
    elif name in ALIASES and ALIASES[name].canonical in searchable:
        section.problem("is a name for training only", f"search {ALIASES[name].canonical}", name)
    else:
        section.problem("unknown parameter", did_you_mean(name, searchable), name)


def _parse_dimension(section: Section, field: Field) -> Dimension | None:
    before = len(section.problems)
    kind = section.one_of("type", KINDS, "")
    if "type" not in section:
        section.problem("has no type", "expected type: float, int or choice")
    dimension: Dimension | None = None
    if kind == "choice":
        dimension = _parse_choice(section, field)
    elif kind in ("float", "int"):
        dimension = _parse_interval(section, field, kind)
    if kind:
        section.finish()
    return dimension if len(section.problems) == before else None


def _parse_choice(section: Section, field: Field) -> Choice | None:
    values = section.raw("values")
    if "values" not in section:
        section.problem("is missing", "expected a list of values, e.g. [8, 16, 32]", "values")
        return None
    if not isinstance(values, list) or not values:
        section.got(values, "expected a list of values, e.g. [8, 16, 32]", "values")
        return None
    refused = [(value, why) for value in values if (why := field.refuse(value))]
    made = values if refused else [typed(field, value) for value in values]
    if any(value in made[:i] for i, value in enumerate(made)):
        section.got(values, "expected each value once", "values")
    for value, why in refused:
        section.got(value, why, "values")
    return None if refused else Choice(tuple(made))


def _parse_interval(section: Section, field: Field, kind: str) -> Float | Int | None:
    low, high = (_parse_bound(section, field, kind, end) for end in ("low", "high"))
    log = LOG.read(section)
    step = section.optional("step", "a number above 0")
    if kind == "int" and field.type is float:
        section.problem("got type int", f"{field.name} is {field.describe()}: expected type: float", "type")
    if field.type is str or (kind == "float" and field.type is int):
        right = "choice" if field.type is str else "int"
        section.problem(f"got type {kind}", f"{field.name} is {field.describe()}: expected type: {right}", "type")
    if low is None or high is None:
        return None
    if low > high:
        section.problem(f"low {low:g} is above high {high:g}", "expected low <= high", "low")
    if log and low <= 0:
        section.problem(f"got low {low:g} with log: true", "expected low above 0", "low")
    if log and step is not None:
        section.problem("got step with log: true", "expected one of the two", "step")
    if step is not None and not _is_step(step, kind):
        section.got(step, f"expected a {'whole ' if kind == 'int' else ''}number above 0", "step")
        return None
    if kind == "float" and step is not None and (high - low) / step > MOST_STEPS:
        section.got(step, f"expected at most {MOST_STEPS:,} steps from low to high: a larger one, or none", "step")
        return None
    if kind == "int":
        return Int(int(low), int(high), log, int(step or 1))
    return Float(float(low), float(high), log, None if step is None else float(step))


def _is_step(step: Any, kind: str) -> bool:
    if not is_number(step) or not math.isfinite(step) or step > MOST:
        return False
    return step > 0 and (kind == "float" or step == int(step))


def _parse_bound(section: Section, field: Field, kind: str, end: str) -> float | None:
    value: Any = section.raw(end)
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (kind == "int" and not whole):
        wanted = "a whole number" if kind == "int" else "a number"
        if end in section:
            section.got(value, f"expected {wanted}", end)
        else:
            section.problem("is missing", f"expected {wanted}", end)
        return None
    if not math.isfinite(value):
        section.got(value, "expected a finite number", end)
        return None
    if field.type is not str and (why := field.refuse(int(value) if field.type is int and whole else value)):
        section.got(value, why, end)
    return value
