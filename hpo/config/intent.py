"""What a sweep will ask of its base model, so that a trainer can look at all of it before the first trial."""

from __future__ import annotations

from typing import Literal

from hpo.config.dimensions import Choice, Dimension
from hpo.config.space import Point, SearchSpace
from hpo.config.sweep_config import SweepConfig
from trainers.protocol.requests import Intent, MethodPlan
from trainers.protocol.settings import ASKED_OF_MODEL, FIELDS


def intent_of(config: SweepConfig) -> Intent:
    """Every different thing that a trial may ask of the model, and whether the champion is to be released."""
    plans: dict[tuple[object, ...], MethodPlan] = {}
    for point in _points(config.space):
        method = str(point.get("method", config.method))
        settings = {name: point.get(name, config.settings[name]) for name in ASKED_OF_MODEL if _is_read(name, method)}
        plans[method, *settings.items()] = MethodPlan(method, settings)
    release: Literal["no", "if possible", "asked"] = "no"
    if config.promote is not None:
        release = "asked" if config.promote_is_given else "if possible"
    target = config.promote.target if config.promote else "cpu"
    as_adapters = config.promote is not None and config.promote.is_adapters
    return Intent(list(plans.values()), list(config.space.dimensions), release, target, as_adapters)


def _is_read(name: str, method: str) -> bool:
    methods = FIELDS[name].methods
    return not methods or method in methods


def _points(space: SearchSpace) -> list[Point]:
    """Every combination of what a model is asked for. Numbers have their ends, and what conditions name of them."""
    wanted = {"method", *ASKED_OF_MODEL} & set(space.dimensions)
    while more := {other for name in wanted for other in space.conditions.get(name, {})} - wanted:
        wanted |= more
    dimensions = {name: _few_values(space, name) for name in space.dimensions if name in wanted}
    return SearchSpace(dimensions, {n: c for n, c in space.conditions.items() if n in wanted}).grid()


def _few_values(space: SearchSpace, name: str) -> Dimension:
    dimension = space.dimensions[name]
    if isinstance(dimension, Choice):
        return dimension
    named = [value for condition in space.conditions.values() for value in condition.get(name, ())]
    return Choice(tuple(dict.fromkeys([dimension.low, dimension.last, *named])))
