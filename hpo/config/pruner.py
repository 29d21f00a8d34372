"""The `pruner:` section: which rule, with which numbers, on which objective."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpo.config.objective import Objective
from hpo.config.yaml_source import Section
from hpo.pruning.rules import RULES, Rule
from trainers.protocol.catalog import RESOURCES

DEFAULT = "percentile"
"""Of the rules that save much the mildest in small sweeps: `python -m tests.bench rules`."""
_BOUNDS = {
    "reduction_factor": (lambda v: v >= 2 and v == int(v), "a whole number from 2"),
    "min_fraction": (lambda v: 0 < v < 1, "a number between 0 and 1"),
    "tolerance": (lambda v: 0 <= v < 1, "a share from 0 to 1"),
    "min_peers": (lambda v: v >= 1 and v == int(v), "a whole number from 1"),
    "percentile": (lambda v: 0 < v < 100, "a number between 0 and 100"),
    "patience": (lambda v: v >= 1 and v == int(v), "a whole number from 1"),
    "min_delta": (lambda v: v >= 0, "a number from 0"),
    "alpha": (lambda v: 0 < v < 1, "a number between 0 and 1"),
    "lower": (lambda v: True, "a number"),
    "upper": (lambda v: True, "a number"),
}


@dataclass(frozen=True)
class PrunerConfig:
    """A rule, by its name in the YAML, and the objective it looks at."""

    type: str
    rule: Rule
    objective: Objective

    def resolved(self) -> dict[str, Any]:
        return {"type": self.type, "metric": self.objective.metric, **_plain(self.rule)}


def _plain(rule: Any) -> dict[str, Any]:
    values = {f.name: getattr(rule, f.name) for f in dataclasses.fields(rule)}
    return {n: {"type": _name(v), **_plain(v)} if dataclasses.is_dataclass(v) else v for n, v in values.items()}


def _name(rule: Any) -> str:
    return next(name for name, cls in RULES.items() if cls is type(rule))


def parse_pruner(root: Section, objectives: Sequence[Objective]) -> PrunerConfig:
    section = root.section("pruner")
    metrics = [o.metric for o in objectives if o.metric not in RESOURCES]  # they have no curve
    metric = section.one_of("metric", metrics, metrics[0])
    kind, rule = _parse_rule(section)
    return PrunerConfig(kind, rule, next(o for o in objectives if o.metric == metric))


def _parse_rule(section: Section) -> tuple[str, Rule]:
    kind = section.one_of("type", RULES, DEFAULT)
    cls: Any = RULES[kind]
    given: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.name == "rule":
            given["rule"] = _parse_rule(section.section("rule"))[1]
            continue
        accept, expected = _BOUNDS[field.name]
        if section.optional(field.name) is not None:
            number = section.number(field.name, 1, accept, expected)
            given[field.name] = int(number) if isinstance(field.default, int) else float(number)
    if kind == "threshold" and not given:
        section.problem("has no bound", "expected lower or upper", "type")
    if kind == "threshold" and given.get("lower", -math.inf) > given.get("upper", math.inf):
        found = f"lower {given['lower']:g} is above upper {given['upper']:g}"
        section.problem(found, "expected lower <= upper", "lower")
    if kind == "patient" and section.raw("rule") is None:
        section.problem("has no rule", "expected e.g. rule: {type: median}", "type")
    section.finish()
    return kind, cls(**given)
