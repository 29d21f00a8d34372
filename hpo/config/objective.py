"""What is being optimized, which of two values is better, and what no champion may exceed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hpo.config.keys import Described, Number, read_all
from hpo.config.yaml_source import Section
from hpo.quoting import quoted
from trainers.metrics.names import own_name
from trainers.protocol.catalog import DIRECTIONS, GENERATED, METRICS, RESOURCES, TASKS, Direction, relative_drop
from trainers.protocol.events import TrialResult


@dataclass(frozen=True)
class Objective:
    """A metric and its direction."""

    metric: str
    direction: Direction

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest value that the metric can have; of one of your own nobody knows."""
        known = METRICS.get(self.metric)
        return known.bounds if known else (-math.inf, math.inf)

    def better(self, a: float, b: float) -> bool:
        """Whether `a` is strictly better than `b`; NaN is worse than anything."""
        if math.isnan(a) or math.isnan(b):
            return math.isnan(b) and not math.isnan(a)
        return a > b if self.direction == "maximize" else a < b

    def sort_key(self, value: float) -> float:
        """Ascending order of this key is best first."""
        if math.isnan(value):
            return math.inf
        return -value if self.direction == "maximize" else value

    def sort_keys(self, values: Iterable[float]) -> list[float]:
        """The key of each of many values, in half the time."""
        sign = -1 if self.direction == "maximize" else 1
        return [math.inf if math.isnan(value) else sign * value for value in values]

    def relative_drop(self, value: float, reference: float) -> float:
        """How much worse `value` is than `reference`, as a share of `reference`; negative when better."""
        return relative_drop(value, reference, self.direction)


MOST = 1_000_000_000_000
"""Of what a constraint bounds: seconds, parameters, megabytes."""
OBJECTIVE = (
    Described("direction", None, "`maximize` or `minimize`, for a metric of your own only",
              described={"enum": [*DIRECTIONS, None]}),
    Described("metric", None, "what a trial's best evaluation, its early stopping and the champion are judged by",
              shown="the task's first", described={
                  "anyOf": [{"enum": [*METRICS, *RESOURCES, None]}, {"type": "string", "pattern": r"^[A-Za-z_]\w*$"}],
              }),
)  # fmt: skip
CONSTRAINTS = (
    Number("max_seconds", None, "of training and evaluating, for a whole trial", above=0, most=MOST),
    Number("max_trainable_parameters", None, "parameters that a trial trains", above=0, most=MOST),
    Number("max_adapter_mb", None, "size of the adapter's files", above=0, most=MOST),
)
Constraints = Mapping[str, float]
"""Resource -> the most of it that a trial may need."""


def value_of(result: TrialResult, metric: str) -> float:
    """A metric of a trial's best evaluation, or what the whole trial cost."""
    return float(getattr(result, metric)) if metric in RESOURCES else result.metrics[metric]


def excess(result: TrialResult, constraints: Constraints) -> dict[str, float]:
    """By how much a trial exceeds each constraint, as a share of it; at most 0 where it keeps it."""
    return {name: value_of(result, name) / most - 1 for name, most in constraints.items()}


def gate_of(task: str, objective: Objective) -> Objective:
    """What ONNX variants are judged by: the objective where it is the task's own metric, else the task's first. In
    onnxruntime no answers are generated for it, and your own functions do not run."""
    metrics = TASKS[task].metrics
    return objective if objective.metric in metrics else Objective(metrics[0], METRICS[metrics[0]].direction)


def pareto_front(points: Mapping[int, Sequence[float]]) -> list[int]:
    """Trials that no other one beats in every objective; `points` hold sort keys (lower is better)."""

    def beats(a: Sequence[float], b: Sequence[float]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))

    return sorted(n for n, point in points.items() if not any(beats(other, point) for other in points.values()))


def parse_objectives(root: Section, task: str, further: Sequence[str] = ()) -> tuple[Objective, ...]:
    """Read `objective:`, a mapping or a list of them; the first must be a metric of the task, one of generated text
    where it generates, or your own among the `further` metrics."""
    raw = root.raw("objective")
    if not task:
        return (Objective("loss", "minimize"),)
    own = [own_name(metric) for metric in further if ":" in metric]
    metrics = (*TASKS[task].metrics, *(GENERATED if TASKS[task].generates else ()), *own)
    if not isinstance(raw, list):
        return (_parse_objective(root.section("objective"), task, metrics, metrics[0]),)
    if not raw or not all(isinstance(item, dict) for item in raw):
        root.got(raw, "expected a mapping, or a list of them", "objective")
        return (Objective(metrics[0], METRICS[metrics[0]].direction),)
    objectives, before = [], len(root.problems)
    for index, item in enumerate(raw):
        allowed = metrics if index == 0 else (*metrics, *RESOURCES)
        objectives.append(_parse_objective(root.child(f"objective[{index}]", item), task, allowed, metrics[0]))
    different = tuple(dict.fromkeys(objectives))
    if len(different) < len(objectives) and len(root.problems) == before:  # else a default stands in for what is wrong
        root.problem("names a metric twice", "expected each once", "objective")
    return different


def _parse_objective(section: Section, task: str, allowed: Sequence[str], default: str) -> Objective:
    value = section.raw("metric")
    if value is None:
        value = section.one_of("metric", allowed, default)
    elif isinstance(value, str) and value in RESOURCES and value not in allowed:
        expected = f"what a trial costs comes second; first one of {', '.join(allowed)}"
        section.got(value, expected, "metric")
        value = None
    elif isinstance(value, str) and value in METRICS and value not in allowed:
        section.problem(f"{task} has no metric {value!r}", f"expected one of {', '.join(allowed)}", "metric")
        value = None
    else:
        value = section.one_of("metric", allowed, default)
    metric = value or default
    direction = _direction(section, metric)
    section.finish()
    return Objective(metric, direction)


def _direction(section: Section, metric: str) -> Direction:
    """The catalog's; of your own metric the file says it, for nobody else knows which is better."""
    given, known = section.raw("direction"), {**METRICS, **RESOURCES}.get(metric)
    if known:
        if given is not None and section.raw("metric") in (None, metric):  # else a default stands in for what is wrong
            found = f"got {quoted(given)}, but {metric} is {known.direction}d"
            section.problem(found, "leave it out: only a metric of your own needs it", "direction")
        return known.direction
    if given is None:
        section.problem("is missing", f"expected maximize or minimize: which is better of {metric}?", "direction")
        return "maximize"
    return "minimize" if section.one_of("direction", DIRECTIONS, "maximize") == "minimize" else "maximize"


def parse_constraints(root: Section) -> dict[str, float]:
    """Read `constraints:`, e.g. `{max_seconds: 60}`, to resource -> bound."""
    section = root.section("constraints")
    bounds = read_all(section, CONSTRAINTS)
    section.finish()
    return {key.removeprefix("max_"): bound for key, bound in bounds.items() if bound is not None}
