"""SweepConfig: one YAML file, checked against the catalog, every problem reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.errors import ConfigError
from hpo.home import NAME_PATTERN, Home
from hpo.inputs import parse_data, parse_model
from hpo.objective import Objective
from hpo.space import SearchSpace, parse_space
from hpo.yaml_source import Section, load
from trainers.catalog import FIELDS, METHODS, METRICS, TASKS, Field, Setting, default_settings
from trainers.codec import fingerprint
from trainers.files import TrialPaths
from trainers.spec import DataRef, Inspection, ModelRef, TrialSpec, Workload

STRATEGIES = ("tpe", "random", "grid")
PRUNERS = ("successive_halving", "none")
BUDGETS = ("max_epochs", "max_examples", "max_steps")


@dataclass(frozen=True)
class Strategy:
    type: str
    num_trials: int
    """A total, the baseline included."""


@dataclass(frozen=True)
class Pruner:
    type: str
    reduction_factor: int
    min_fraction: float
    """Share of a trial's budget at the first rung."""
    tolerance: float
    """Share of a trial's value by which a peer must be better to count as better."""


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
    """Every setting of task and method: as in the file, else the catalog's default."""
    objective: Objective
    pruner: Pruner
    promote: Promote | None
    seed: int

    def workload(self, home: Home) -> Workload:
        max_length = self.settings["max_length"]
        assert isinstance(max_length, int)  # noqa: S101  # the catalog's type, checked when parsed
        return Workload(self.task, self.model, self.data, max_length, str(self.settings["precision"]), str(home.cache))

    def baseline(self) -> dict[str, Setting]:
        """Trial 0: the default point inside the space."""
        settings = dict(self.settings)
        if settings.get("lora_alpha") is None and "lora_alpha" in self.space.dimensions:
            settings["lora_alpha"] = float(settings["alpha_ratio"] or 1) * int(settings["lora_r"] or 1)
        return self.space.baseline(settings)

    def planned_trials(self) -> int:
        """How many trials the sweep will have: a grid's own size, one without a space, else `num_trials`."""
        if not self.space.dimensions:
            return 1
        if self.strategy.type == "grid":
            points = self.space.grid()
            return len(points) + (self.baseline() not in points)
        return self.strategy.num_trials

    def examples_per_trial(self, train_rows: int) -> int:
        """The full budget of every trial, in training examples seen.

        `max_steps` counts steps of the baseline's batch size, so that trials with other batch sizes do equal work.
        """
        settings = {**self.settings, **self.baseline()}
        if settings["max_examples"] is not None:
            return int(settings["max_examples"])
        if settings["max_steps"] is not None:
            return int(settings["max_steps"]) * int(settings["batch_size"] or 1)
        return max(1, round(float(settings["max_epochs"] or 1) * train_rows))

    def trial_spec(
        self, number: int, params: Mapping[str, Setting], home: Home, inspection: Inspection, paths: TrialPaths,
        threads: int, device: str = "cpu",
    ) -> TrialSpec:  # fmt: skip
        return TrialSpec(
            number=number,
            workload=self.workload(home),
            method=self.method,
            settings={**self.settings, **params},
            metric=self.objective.metric,
            direction=self.objective.direction,
            max_examples=self.examples_per_trial(inspection.rows["train"]),
            seed=self.seed,
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
            "model": {
                "source": self.model.source,
                "revision": self.model.revision,
                "trust_remote_code": self.model.trust_remote_code,
            },
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
            "search_strategy": {"type": self.strategy.type, "num_trials": self.strategy.num_trials},
            "search_space": {
                name: {"type": type(d).__name__.lower(), **vars(d)} for name, d in self.space.dimensions.items()
            },
            "training": dict(self.settings),
            "objective": {"metric": self.objective.metric, "direction": self.objective.direction},
            "pruner": vars(self.pruner),
            "promote": vars(self.promote) if self.promote else None,
            "seed": self.seed,
        }


def load_config(file: Path, home: Home) -> SweepConfig:
    """Read and check a sweep's YAML. Raises `ConfigError` with every problem of the file."""
    root = load(file)
    task = _required_choice(root, "task", TASKS)
    method = root.one_of("method", METHODS, "lora")
    fields = {name: f for name, f in FIELDS.items() if not f.methods or method in f.methods}
    settings = {**default_settings(task or "text-classification", method), **_training(root, fields, method)}
    name = _name(root, "name", file.stem)
    config = SweepConfig(
        file=file,
        name=name,
        task=task,
        model=parse_model(root, file, home),
        data=parse_data(root, file, home, task),
        method=method,
        strategy=_strategy(root),
        space=parse_space(root.section("search_space"), fields),
        settings=settings,
        objective=_objective(root, task),
        pruner=_pruner(root),
        promote=_promote(root, name),
        seed=int(root.number("seed", 0, lambda v: v >= 0 and v == int(v), "a whole number from 0")),
    )
    root.refuse_unbuilt("finalists", "repeats with fresh seeds")
    root.refuse_unbuilt("budget", "bound a sweep by search_strategy.num_trials for now")
    root.finish()
    _check_together(root, config)
    if root.problems:
        raise ConfigError(root.problems)
    return config


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
        given[name] = value
    for name in section.names():
        if name in FIELDS and name not in fields:
            section.raw(name)
            section.problem(f"is not a setting of method {method}", "remove it", name)
    if len(budgets := [name for name in BUDGETS if given.get(name) is not None]) > 1:
        section.problem(f"{' and '.join(budgets)} are given", "expected one of them", budgets[1])
    nested.finish()
    section.finish()
    return given


def _strategy(root: Section) -> Strategy:
    section = root.section("search_strategy")
    kind = section.one_of("type", STRATEGIES, "tpe")
    trials = section.number("num_trials", 20, lambda v: v >= 1 and v == int(v), "a whole number from 1")
    section.finish()
    return Strategy(kind, int(trials))


def _objective(root: Section, task: str) -> Objective:
    section = root.section("objective")
    if not task:
        section.raw("metric")
        return Objective("loss", "minimize")
    metrics = TASKS[task].metrics
    value = section.raw("metric")
    if isinstance(value, str) and value in METRICS and value not in metrics:
        section.problem(f"{task} has no metric {value!r}", f"expected one of {', '.join(metrics)}", "metric")
        value = None
    elif value is not None:
        value = section.one_of("metric", metrics, metrics[0])
    section.finish()
    metric = value or metrics[0]
    return Objective(metric, METRICS[metric].direction)


def _pruner(root: Section) -> Pruner:
    section = root.section("pruner")
    kind = section.one_of("type", PRUNERS, "successive_halving")
    factor = section.number("reduction_factor", 3, lambda v: v >= 2 and v == int(v), "a whole number from 2")
    fraction = section.number("min_fraction", 0.2, lambda v: 0 < v < 1, "a number between 0 and 1")
    tolerance = section.number("tolerance", 0.02, lambda v: 0 <= v < 1, "a share from 0 to 1")
    section.finish()
    return Pruner(kind, int(factor), fraction, tolerance)


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
    if config.strategy.type == "grid" and config.space.dimensions:
        try:
            config.space.grid()
        except ValueError as error:
            root.problem(
                f"grid needs a finite space; {error} has none", "give each a step, or type: choice",
                "search_strategy", "type",
            )  # fmt: skip
    if config.settings.get("lora_alpha") is not None and "alpha_ratio" in config.space.dimensions:
        root.problem(
            "is searched, but training.lora_alpha decides", "remove one of the two", "search_space", "alpha_ratio"
        )
    if "lora_alpha" in config.space.dimensions and "alpha_ratio" in config.space.dimensions:
        root.problem(
            "lora_alpha and alpha_ratio are both searched", "expected one of them", "search_space", "alpha_ratio"
        )
