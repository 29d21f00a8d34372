"""The `pruner:` section: which rule, with which numbers, on which objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.config.keys import Described, Number, OneOf, Value, Whole
from hpo.config.objective import Objective
from hpo.config.yaml_source import Section
from hpo.pruning.base import Rule
from hpo.pruning.table import RULES
from trainers.protocol.catalog import RESOURCES

DEFAULT = "percentile"
"""Of the rules that save much the mildest in small sweeps: `python -m tests.bench rules`."""
NUMBERS: Mapping[str, Value] = {
    key.name: key
    for key in (
        Whole("reduction_factor", None, "of the trials at a rung, one in this many goes on", low=2),
        Number("min_fraction", None, "share of the budget before which no trial is judged", above=0, below=1),
        Number("standard_errors", None,
               "how many standard errors of their difference on the same rows a peer must be better by to count as "
               "better; less is noise", low=0),
        Number("tolerance", None, "the same as a share of the value, where the results of rows were not kept", low=0,
               below=1),
        Whole("min_peers", None, "no pruning while fewer peers have reached this point", low=1),
        Number("percentile", None, "how many percent of the trials, the best ones, go on", above=0, below=100),
        Whole("patience", None, "evaluations without improvement before the inner rule counts", low=1),
        Number("min_delta", None, "smallest change that counts as improvement", low=0),
        Number("alpha", None, "a trial stops when chance explains its losses with less than this probability",
               above=0, below=1),
        Number("lower", None, "a trial stops below this value"),
        Number("upper", None, "a trial stops above this value"),
    )
}  # fmt: skip
"""What rules are made of. None here: each rule has its own default."""
STOPS_WHEN: Mapping[str, str] = {
    "percentile": "its best value is worse than the best 25 % of its peers' at the same share of the budget",
    "median": "the same with the best half (Golovin et al. 2017)",
    "successive_halving": "at a rung it is not among the best 1/3 that got there so far; rungs are at 0.2 of the "
    "budget and 3, 9, ... times that (Li et al. 2020). Each later evaluation asks again, because more may have got "
    "there; the value at the rung or the latest counts, whichever is better",
    "hyperband": "the same within its bracket; brackets begin at different rungs, for trials that start slowly "
    "(Li et al. 2018)",
    "threshold": "its value lies outside; give `lower`, `upper` or both",
    "patient": "`rule: {type: median}` or another one says so, and its last 2 values brought no improvement",
    "paired": "its losses, example by example, are surely worse than those of the best (Wilcoxon's signed-rank test)",
    "none": "never",
}
"""Each rule in one line, for the grammar page."""
PRUNER = (
    OneOf("type", DEFAULT, "the rule that decides which trials stop", choices=tuple(RULES)),
    Described("metric", None, "which objective the rule looks at (a metric, not a resource)",
              shown="the first objective's", described={"type": "string", "minLength": 1}),
)  # fmt: skip


@dataclass(frozen=True)
class PrunerConfig:
    """A rule, by its name in the YAML, and the objective it looks at."""

    type: str
    rule: Rule
    objective: Objective

    def resolved(self) -> dict[str, Any]:
        """The pruner as plain values, defaults filled in."""
        return {"type": self.type, "metric": self.objective.metric, **_plain(self.rule)}


def _plain(rule: Any) -> dict[str, Any]:
    values = {f.name: getattr(rule, f.name) for f in dataclasses.fields(rule)}
    return {n: {"type": _name(v), **_plain(v)} if dataclasses.is_dataclass(v) else v for n, v in values.items()}


def _name(rule: Any) -> str:
    return next(name for name, cls in RULES.items() if cls is type(rule))


def parse_pruner(root: Section, objectives: Sequence[Objective], *, are_known: bool = True) -> PrunerConfig:
    """Read `pruner:`; the rule looks at one of the `objectives`, if those are known."""
    section = root.section("pruner")
    metrics = [o.metric for o in objectives if o.metric not in RESOURCES]  # they have no curve
    metric = metrics[0]
    if are_known or section.raw("metric") is None:
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
        elif (number := NUMBERS[field.name].read(section)) is not None:
            given[field.name] = int(number) if isinstance(field.default, int) else float(number)
    if kind == "threshold":
        _check_threshold(section, given)
    if kind == "patient" and section.raw("rule") is None:
        section.problem("has no rule", "expected e.g. rule: {type: median}", "type")
    section.finish()
    return kind, cls(**given)


def _check_threshold(section: Section, given: Mapping[str, float]) -> None:
    if section.raw("lower") is None and section.raw("upper") is None:
        section.problem("has no bound", "expected lower or upper", "type")
    if len(given) == 2 and given["lower"] > given["upper"]:
        found = f"lower {given['lower']:g} is above upper {given['upper']:g}"
        section.problem(found, "expected lower <= upper", "lower")
