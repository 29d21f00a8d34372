"""How a sweep chooses its points: what the file asks for, and what `auto` makes of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.config.dimensions import Choice
from hpo.config.keys import SWEEP_NAME, Described, OneOf, Whole, read_all
from hpo.config.setting_values import typed
from hpo.config.space import Point, SearchSpace
from hpo.config.yaml_source import Section
from hpo.errors import did_you_mean
from hpo.paths import NAME_PATTERN
from hpo.quoting import quoted
from trainers.protocol.counted import counted
from trainers.protocol.settings import FIELDS, Setting

STRATEGIES = ("auto", "random", "grid", "informed", "tpe", "gp", "qmc", "nsga2")
STRATEGY = (
    OneOf("type", "auto", "how points are chosen", choices=STRATEGIES),
    Whole("num_trials", 20, "a total, trial 0 (the baseline) included; may be raised later; `grid` does without it",
          low=1),
    Described("enqueue", None,
              "points to try first, e.g. `[{learning_rate: 1e-3}]`; dimensions left out are as in the baseline",
              described={"type": ["array", "null"], "items": {"type": "object"}}),
    Described("warm_start", None,
              "names of earlier sweeps: trials that this one would train just the same are taken over with their "
              "results, and the three best points of each are tried first",
              described={**SWEEP_NAME, "type": ["array", "string", "null"], "items": SWEEP_NAME}),
)  # fmt: skip


@dataclass(frozen=True)
class SearchStrategy:
    """As in the file."""

    type: str = "auto"
    num_trials: int = 20
    """A total, the baseline included."""
    enqueue: tuple[Mapping[str, Setting], ...] = ()
    """Points to try first, each with some or all dimensions."""
    warm_start: tuple[str, ...] = ()
    """Earlier sweeps whose best points are tried first and whose equal trials are taken over."""

    def resolved(self) -> dict[str, Any]:
        """The strategy as plain values."""
        return {
            "type": self.type, "num_trials": self.num_trials, "enqueue": [dict(p) for p in self.enqueue],
            "warm_start": list(self.warm_start),
        }  # fmt: skip


@dataclass(frozen=True)
class ResolvedStrategy:
    """The strategy that runs, and why."""

    type: str
    why: str


BEFORE_INFORMED = ("gp", "qmc", "tpe")
"""What `auto` chose with one objective when there was no `informed` yet."""


def choose_strategy(
    strategy: SearchStrategy, space: SearchSpace, objectives: int, most_trials: int | None = None,
    began: ResolvedStrategy | None = None,
) -> ResolvedStrategy:  # fmt: skip
    """`auto` by budget, dimension and kind of space; anything else as asked for. `most_trials` is the budget's bound,
    `began` what the sweep has gone by so far.

    A space that fits into the budget is tried whole. With one objective a Gaussian process that knows the field is the
    most economical, from the second trial on; TPE copes with spaces too large for it. NSGA-II needs generations, so
    only many trials of several objectives get it. A sweep that began before there was `informed` goes on as then.
    """
    if strategy.type != "auto":
        return ResolvedStrategy(strategy.type, "as the file says")
    trials = min(strategy.num_trials, most_trials or strategy.num_trials)
    dimensions = {name: dimension for name, dimension in space.dimensions.items() if dimension.size() > 1}
    if not dimensions:
        return ResolvedStrategy("random", "there is nothing to search")
    if space.most_points() <= trials:
        return ResolvedStrategy("grid", f"all {space.most_points():.0f} points fit into {trials} trials")
    if objectives > 1:
        many = trials >= 200
        return ResolvedStrategy("nsga2" if many else "tpe", f"{objectives} objectives, {counted(trials, 'trial')}")
    is_small = len(dimensions) <= 8 and trials <= 200
    unordered = [n for n, d in dimensions.items() if isinstance(d, Choice) and not d.is_numeric()]
    is_numeric = not space.conditions and not unordered
    if began is None or began.type not in BEFORE_INFORMED:
        if is_small:
            why = f"{counted(len(dimensions), 'dimension')}, {counted(trials, 'trial')}"
            return ResolvedStrategy("informed", why)
    elif trials < 10:
        return ResolvedStrategy("qmc", f"with {counted(trials, 'trial')}, spreading them evenly is best")
    elif is_small and is_numeric:
        return ResolvedStrategy("gp", f"{len(dimensions)} numeric dimensions without conditions, {trials} trials")
    return ResolvedStrategy("tpe", "a space with categories, conditions or many dimensions")


def spread_point(space: SearchSpace, index: int, seed: int) -> Point:
    """Point `index` of a scrambled Sobol sequence over all dimensions (Sobol 1967, scrambling of Owen 1998).

    A function of seed and index alone, so a resumed sweep goes on with the same points.
    """
    from scipy.stats import qmc  # late: half a second of imports that only this strategy needs

    sequence = qmc.Sobol(len(space.dimensions), scramble=True, seed=seed)
    if index:
        sequence.fast_forward(index)
    shares = dict(zip(space.dimensions, sequence.random(1)[0].tolist(), strict=True))
    return space.point(lambda name, dimension: dimension.at(shares[name]))


def complete_point(given: Mapping[str, Setting], space: SearchSpace, defaults: Mapping[str, Setting]) -> Point:
    """A point with the given values, and defaults where it has none."""
    return space.point(lambda name, d: d.nearest(given[name] if name in given else defaults[name]))


def parse_strategy(root: Section, space: SearchSpace) -> SearchStrategy:
    """Read `search_strategy:`; points to try first must lie in `space`."""
    section = root.section("search_strategy")
    enqueue = _parse_enqueue(root, section, space)
    given = read_all(section, STRATEGY)
    warm_start: Any = section.raw("warm_start")
    if warm_start is None or isinstance(warm_start, str):
        warm_start = [] if warm_start is None else [warm_start]
    if not isinstance(warm_start, list) or not all(
        isinstance(w, str) and NAME_PATTERN.fullmatch(w) for w in warm_start
    ):
        section.got(warm_start, "expected names of earlier sweeps", "warm_start")
        warm_start = []
    section.finish()
    return SearchStrategy(**given, enqueue=enqueue, warm_start=tuple(warm_start))


def _parse_enqueue(root: Section, section: Section, space: SearchSpace) -> tuple[Mapping[str, Setting], ...]:
    raw = section.raw("enqueue")
    if raw is None:
        return ()
    if not isinstance(raw, list) or not all(isinstance(point, dict) for point in raw):
        section.got(raw, "expected a list of points, e.g. [{learning_rate: 1e-3}]", "enqueue")
        return ()
    written = root.raw("search_space")
    refused = set(written) - set(space.dimensions) if isinstance(written, dict) else set()  # reported there
    points = [{name: _as_setting(name, value) for name, value in point.items()} for point in raw]
    for number, point in enumerate(points, 1):
        for name, value in point.items():
            dimension = space.dimensions.get(name)
            if dimension is None and name not in refused:
                hint = did_you_mean(name, space.dimensions) if space.dimensions else "search_space has none"
                section.problem(f"point {number}: {quoted(name)} is not a dimension", hint, "enqueue")
            elif dimension is not None and not dimension.contains(value):
                expected = f"{name} is {dimension.describe()}"
                section.problem(
                    f"point {number}: {name} {quoted(value)} lies outside the search space", expected, "enqueue"
                )
    return tuple({name: _as_in(space, name, value) for name, value in point.items()} for point in points)


def _as_setting(name: str, value: Any) -> Any:
    """A list of layers, or a mapping, as the text that a dimension has for it."""
    field = FIELDS.get(name)
    return value if field is None or field.refuse(value) else typed(field, value)


def _as_in(space: SearchSpace, name: str, value: Any) -> Setting:
    """A value as its dimension spells it: `1` is 1.0 in a dimension of floats."""
    dimension = space.dimensions.get(name)
    if dimension is None or not dimension.contains(value):
        return value  # type: ignore[no-any-return]  # reported above
    return dimension.nearest(value)


def untried(points: Sequence[Point], tried: set[str], identity: Any, seed: int) -> Point | None:
    """One of `points` whose identity is not in `tried`, at random; None when all have been tried."""
    import random

    left = [point for point in points if identity(point) not in tried]
    return random.Random(seed).choice(left) if left else None  # noqa: S311  # a repeatable draw, not a secret


def is_countable(space: SearchSpace, most: int = 20_000) -> bool:
    """Whether all points of a space can be listed."""
    return not math.isinf(size := space.most_points()) and size <= most
