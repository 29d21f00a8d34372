"""SweepConfig: one YAML file, checked against the catalog, every problem reported at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpo.budget import Budget, parse_budget
from hpo.errors import ConfigError
from hpo.home import NAME_PATTERN, Home
from hpo.inputs import parse_data, parse_model
from hpo.objective import Objective, parse_constraints, parse_objectives
from hpo.pruner import Pruner, parse_pruner
from hpo.space import Choice, Dimension, Point, SearchSpace, parse_space, typed
from hpo.strategy import Strategy, complete_point, is_countable, parse_strategy
from hpo.yaml_source import Section, load
from trainers.catalog import (
    BUDGETS,
    FIELDS,
    METHOD,
    METHODS,
    TASKS,
    Field,
    Setting,
    canonical_settings,
    default_settings,
)
from trainers.codec import fingerprint
from trainers.files import TrialPaths
from trainers.spec import DataRef, Inspection, ModelRef, TrialSpec, Workload


@dataclass(frozen=True)
class Finalists:
    """Repeats with fresh seeds: the best `top` trials and the baseline, `seeds` times each."""

    top: int
    seeds: int


@dataclass(frozen=True)
class Patience:
    """What the sweep puts up with before it gives a trial up."""

    retries: int
    """Attempts after the first one that a crash or an interruption may cost."""
    stall_minutes: float
    """A trial that tells nothing for so long is hung."""


@dataclass(frozen=True)
class Promote:
    name: str
    max_drop: float
    """Largest worsening of the metric a variant may show, as a share of torch's own value."""


@dataclass(frozen=True)
class SweepConfig:
    """Everything a sweep was asked to do."""

    file: Path
    name: str
    task: str
    model: ModelRef
    data: DataRef
    method: str
    strategy: Strategy
    space: SearchSpace
    settings: Mapping[str, Setting]
    """Every setting of task and methods: as in the file, else the catalog's default."""
    objectives: tuple[Objective, ...]
    constraints: Mapping[str, float]
    pruner: Pruner
    budget: Budget
    finalists: Finalists | None
    patience: Patience
    promote: Promote | None
    seed: int

    @property
    def objective(self) -> Objective:
        """The first one: what a trial's best evaluation, its early stopping and the champion are judged by."""
        return self.objectives[0]

    def workload(self, home: Home) -> Workload:
        max_length = max(int(value or 0) for value in self._largest("max_length"))
        return Workload(self.task, self.model, self.data, max_length, str(self.settings["precision"]), str(home.cache))

    def _largest(self, name: str) -> list[Setting]:
        """What a setting can be at most: its dimension's values or end, and the fixed value where that may count."""
        dimension = self.space.dimensions.get(name)
        values = [] if dimension is None else dimension.values if isinstance(dimension, Choice) else [dimension.last]
        is_always_searched = dimension is not None and name not in self.space.conditions
        return [*values, *([] if is_always_searched else [self.settings[name]])]

    def defaults(self) -> dict[str, Setting]:
        """What a dimension is where no search says otherwise."""
        settings = {**self.settings, "method": self.method}
        if settings.get("lora_alpha") is None and "lora_alpha" in self.space.dimensions:
            ranks = self.space.dimensions.get("lora_r")
            rank = ranks.nearest(settings["lora_r"]) if ranks else settings["lora_r"]
            settings["lora_alpha"] = float(settings["alpha_ratio"] or 1) * int(rank or 1)
        if settings["max_examples"] is None and "max_examples" in self.space.dimensions:
            settings["max_examples"] = 1 << 62  # the nearest value is the largest
        return settings

    def baseline(self) -> Point:
        """Trial 0: the default point inside the space."""
        return self.space.baseline(self.defaults())

    def planned_trials(self) -> int:
        """How many trials the sweep will have: one without a space, else `num_trials`, or a grid's number of points
        (the baseline is one of them), and no more than the budget allows."""
        if not self.space.dimensions:
            return 1
        planned = self.strategy.num_trials
        if self.strategy.type == "grid":
            planned = len(self.space.grid())
        return min(planned, self.budget.trials or planned)

    def examples_per_trial(self, train_rows: int, params: Mapping[str, Setting] | None = None) -> int:
        """The budget of a trial, in training examples seen; of the baseline without `params`.

        `max_steps` counts steps of the baseline's batch size, so that trials with other batch sizes do equal work.
        """
        baseline = self.baseline()
        settings = {**self.settings, **(baseline if params is None else params)}
        if settings["max_examples"] is not None:
            return int(settings["max_examples"])
        if settings["max_steps"] is not None:
            return int(settings["max_steps"]) * int({**self.settings, **baseline}["batch_size"] or 1)
        return max(1, round(float(settings["max_epochs"] or 1) * train_rows))

    def full_examples(self, train_rows: int) -> int:
        """The largest budget of any trial: shares of the budget are shares of this one."""
        searched = [name for name in BUDGETS if name in self.space.dimensions]
        points = [{name: value} for name in searched for value in self._largest(name)]
        return max(self.examples_per_trial(train_rows, point) for point in [self.baseline(), *points])

    def trial_spec(
        self, number: int, params: Mapping[str, Setting], home: Home, inspection: Inspection, paths: TrialPaths,
        threads: int, device: str = "cpu", seed: int | None = None,
    ) -> TrialSpec:  # fmt: skip
        method = str(params.get("method", self.method))
        searched = {name: value for name, value in params.items() if name != "method"}
        rows = inspection.rows["train"]
        return TrialSpec(
            number=number,
            workload=self.workload(home),
            method=method,
            settings=canonical_settings(method, {**self.settings, **searched}),
            metric=self.objective.metric,
            direction=self.objective.direction,
            max_examples=self.examples_per_trial(rows, params),
            full_examples=self.full_examples(rows),
            seed=self.seed if seed is None else seed,
            inputs=fingerprint([inspection.fingerprint, inspection.model_fingerprint]),
            threads=threads,
            device=device,
            dir=str(paths.dir),
        )

    def resolved(self) -> dict[str, Any]:
        """The whole config as plain values, defaults filled in: what MLflow and the study keep."""
        return {
            "name": self.name,
            "task": self.task,
            "model": asdict(self.model),
            "data": {
                "train": self.data.train,
                "validation": self.data.validation,
                "test": self.data.test,
                **self.data.columns,
                "validation_size": self.data.validation_size,
                "test_size": self.data.test_size,
                "split_seed": self.data.seed,
            },
            "method": self.method,
            "search_strategy": self.strategy.resolved(),
            "search_space": self.space.resolved(),
            "training": dict(self.settings),
            "objective": [asdict(objective) for objective in self.objectives],
            "constraints": dict(self.constraints),
            "pruner": self.pruner.resolved(),
            "budget": asdict(self.budget),
            "finalists": asdict(self.finalists) if self.finalists else None,
            "trials": asdict(self.patience),
            "promote": asdict(self.promote) if self.promote else None,
            "seed": self.seed,
        }


def corner(config: SweepConfig, end: str) -> Point:
    """The smallest or largest point: every numeric dimension at its `low` or `high` end, categories as by default."""

    def choose(name: str, dimension: Dimension) -> Setting:
        if isinstance(dimension, Choice):
            if all(isinstance(v, (int, float)) for v in dimension.values):
                return (min if end == "low" else max)(dimension.values)  # type: ignore[type-var]  # all are numbers
            return dimension.nearest(config.defaults()[name])
        return dimension.low if end == "low" else dimension.last

    return config.space.point(choose)


def largest_point(config: SweepConfig) -> Point:
    """The point that takes most memory."""
    return corner(config, "high")


def load_config(file: Path, home: Home) -> SweepConfig:
    """Read and check a sweep's YAML. Raises `ConfigError` with every problem of the file."""
    root = load(file)
    task = _required_choice(root, "task", TASKS)
    method = root.one_of("method", METHODS, "lora")
    methods = _methods(root, method)
    fields = {n: f for n, f in FIELDS.items() if not f.methods or set(methods) & set(f.methods)}
    defaults = {n: v for m in methods for n, v in default_settings(task or "text-classification", m).items()}
    settings = {**defaults, **_training(root, fields, " or ".join(methods))}
    name = _name(root, "name", file.stem)
    space = parse_space(root.section("search_space"), {**fields, METHOD.name: METHOD})
    objectives = parse_objectives(root, task)
    config = SweepConfig(
        file=file,
        name=name,
        task=task,
        model=parse_model(root, file, home),
        data=parse_data(root, file, home, task),
        method=method,
        strategy=parse_strategy(root, space),
        space=space,
        settings=settings,
        objectives=objectives,
        constraints=parse_constraints(root),
        pruner=parse_pruner(root, objectives),
        budget=parse_budget(root),
        finalists=_finalists(root),
        patience=_patience(root),
        promote=_promote(root, name),
        seed=int(root.number("seed", 0, lambda v: v >= 0 and v == int(v), "a whole number from 0")),
    )
    root.finish()
    _check_together(root, config)
    if root.problems:
        raise ConfigError(root.problems)
    return config


def _methods(root: Section, method: str) -> tuple[str, ...]:
    """The methods that trials may use: the sweep's, or those that the space searches."""
    space = root.raw("search_space")
    searched = space.get("method") if isinstance(space, dict) else None
    values = searched.get("values") if isinstance(searched, dict) else [searched]
    known = tuple(name for name in METHODS if name in values) if isinstance(values, list) else ()
    return known or (method,)


def _required_choice(section: Section, key: str, known: Mapping[str, Any]) -> str:
    if section.raw(key) is None:
        section.problem("is missing", f"expected one of {', '.join(known)}", key)
    return section.one_of(key, known, "")


def _name(section: Section, key: str, default: str) -> str:
    name = section.text(key, default) or default
    if not NAME_PATTERN.fullmatch(name):
        section.problem(f"got {name!r}", "expected letters, digits, '.', '_' and '-'", key)
    return name


def _training(root: Section, fields: Mapping[str, Field], method: str) -> dict[str, Setting]:
    """The settings that the file gives, by their dotted names."""
    section = root.section("training")
    nested = section.section("early_stopping")
    given: dict[str, Setting] = {}
    for name, field in fields.items():
        parent, _, leaf = name.rpartition(".")
        owner = nested if parent else section
        value = owner.raw(leaf)
        if leaf not in owner:
            continue
        if why := field.refuse(value):
            owner.problem(f"got {value!r}", why, leaf)
        given[name] = typed(field, value)
    for name in section.names():
        if name in FIELDS and name not in fields:
            section.raw(name)
            section.problem(f"is not a setting of method {method}", "remove it", name)
    nested.finish()
    section.finish()
    return given


def _finalists(root: Section) -> Finalists | None:
    if root.raw("finalists") is None or root.raw("finalists") is False:
        return None
    section = root.section("finalists")
    top = section.number("top", 3, lambda v: 1 <= v <= 100 and v == int(v), "a whole number from 1 to 100")
    seeds = section.number("seeds", 3, lambda v: 2 <= v <= 100 and v == int(v), "a whole number from 2 to 100")
    section.finish()
    return Finalists(int(top), int(seeds))


def _patience(root: Section) -> Patience:
    section = root.section("trials")
    retries = section.number("retries", 2, lambda v: 0 <= v <= 1000 and v == int(v), "a whole number from 0 to 1000")
    stall = section.number("stall_minutes", 30, lambda v: v > 0, "a number above 0")
    section.finish()
    return Patience(int(retries), float(stall))


def _promote(root: Section, name: str) -> Promote | None:
    if root.raw("promote") is False:
        return None
    section = root.section("promote")
    promoted = _name(section, "name", name) if "name" in section else name
    max_drop = section.number("max_drop", 0.01, lambda v: 0 <= v < 1, "a share from 0 to 1")
    section.finish()
    return Promote(promoted, max_drop)


def _check_together(root: Section, config: SweepConfig) -> None:
    """What no key can know alone."""
    space, training = config.space, root.raw("training")
    given = {name for name, value in training.items() if value is not None} if isinstance(training, dict) else set()

    def place(name: str) -> tuple[str, str]:
        return "search_space" if name in space.dimensions else "training", name

    if config.strategy.type == "grid":
        _check_grid(root, space)
    if len(budgets := [n for n in BUDGETS if n in space.dimensions or n in given]) > 1:
        found = f"{' and '.join(budgets)} are given or searched"
        root.problem(found, "expected one of them", *place(budgets[-1]))
    if "lora_alpha" in given and "alpha_ratio" in space.dimensions:
        found = "is searched, but training.lora_alpha decides"
        root.problem(found, "remove one of the two", "search_space", "alpha_ratio")
    if "lora_alpha" in space.dimensions and "alpha_ratio" in space.dimensions:
        found = "lora_alpha and alpha_ratio are both searched"
        root.problem(found, "expected one of them", "search_space", "alpha_ratio")
    if not root.problems:
        _check_enqueued(root, config)


def _check_grid(root: Section, space: SearchSpace) -> None:
    key = ("search_strategy", "type")
    if endless := [name for name, dimension in space.dimensions.items() if math.isinf(dimension.size())]:
        found = f"grid needs a finite space; {', '.join(endless)} has none"
        root.problem(found, "give each a step, or type: choice", *key)
    elif not is_countable(space):
        found = f"a grid of {space.most_points():,.0f} points"
        root.problem(found, "expected at most 20,000: give larger steps, or choose another type", *key)


def _check_enqueued(root: Section, config: SweepConfig) -> None:
    """A value for a dimension that does not exist at the point, because of its `when`."""
    for number, given in enumerate(config.strategy.enqueue, 1):
        point = complete_point(given, config.space, config.defaults())
        for name in given:
            if name not in point:
                found = f"point {number}: {name} does not exist there"
                root.problem(found, f"see its when; the point is {point}", "search_strategy", "enqueue")
