"""SweepConfig: everything a sweep was asked to do, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hpo.config.budget import Budget
from hpo.config.dimensions import Choice, Dimension
from hpo.config.finalists import Finalists
from hpo.config.nightly import Nightly
from hpo.config.objective import Objective
from hpo.config.promotion import Promote
from hpo.config.pruner import PrunerConfig
from hpo.config.run import Run
from hpo.config.space import Point, SearchSpace
from hpo.config.strategy import SearchStrategy
from hpo.config.yaml_reader import Written
from hpo.paths import Home
from trainers.metrics.names import needs_generation
from trainers.protocol.events import Decision, PreparedData
from trainers.protocol.settings import ALIASES, BUDGETS, Setting
from trainers.protocol.trial_spec import DataRef, Generation, ModelRef, Workload

KEYS_OF_FINDINGS = ("model", "data", "training", "search_space", "metrics", "method", "promote")
"""Sections of the file that a trainer's finding may name as its place."""


COST_OF_EVALUATION = 0.4
"""What a token costs in an evaluation, in times of what it costs in training: 0.37 (MiniLM), measured by `hpo plan`."""
FEWEST_EVALUATION_ROWS = 64
"""Fewer rows say too little, whatever they cost."""


@dataclass(frozen=True)
class RetryPolicy:
    """What the sweep does before it gives a trial up."""

    retries: int
    """Attempts after the first one that a crash or an interruption may cost."""
    stall_minutes: float
    """A trial that makes no progress for so long is hung."""


@dataclass(frozen=True)
class SweepConfig:
    """Everything a sweep was asked to do."""

    file: Path
    name: str
    task: str
    model: ModelRef
    data: DataRef
    method: str
    strategy: SearchStrategy
    space: SearchSpace
    settings: Mapping[str, Setting]
    """Every setting of task and methods: as in the file, else the catalog's default."""
    objectives: tuple[Objective, ...]
    metrics: tuple[str, ...]
    """Measured besides the task's."""
    generation: Generation
    constraints: Mapping[str, float]
    pruner: PrunerConfig
    budget: Budget
    finalists: Finalists | None
    retry_policy: RetryPolicy
    promote: Promote | None
    seed: int
    report_to: tuple[str, ...] = ()
    """Views that are written beside MLflow's."""
    nightly: Nightly | None = None
    """How `hpo nightly` runs it; None where the file does not say."""
    run: Run = field(default_factory=Run)
    """Where its trials train: no part of what the study keeps."""
    experiment: str | None = None
    """MLflow's experiment that several sweeps share; None for one of the sweep's own."""
    code: tuple[str, ...] = ()
    """Hashes of the files that hold your own functions."""
    memory_gb: float | None = None
    """What trials may take together, or on each GPU; None for all that is free."""
    is_certified_later: bool = False
    """Whether a night decides on its release, after the sweep: until then the sealed test is left alone."""
    ends_at: float | None = None
    """What `budget.until` stands for, in seconds since the epoch; of a night, the end of its window."""
    max_length_is_given: bool = True
    """Whether the file says `max_length`, under `training` or as a dimension."""
    written: Written = field(default_factory=lambda: Written(""), compare=False, repr=False)
    """Where the file says what."""
    promote_is_given: bool = False
    """Whether the file says `promote:`. Where it does not, a champion that cannot be released stays an adapter."""
    clock: str = ""
    """What chat templates that print the date are shown, as local ISO time; the study has it, and not the file."""
    decision: Decision | None = None
    """What `precision: auto` was decided to be; the study has it, and not the file."""

    @property
    def objective(self) -> Objective:
        """The first one: what a trial's best evaluation, its early stopping and the champion are judged by."""
        return self.objectives[0]

    def workload(self, home: Home) -> Workload:
        """What all trials share: task, model, data at the longest `max_length` of any trial, metrics."""
        max_length = max(int(value or 0) for value in self._largest("max_length"))
        return Workload(
            self.task, self.model, self.data, max_length, str(self.settings["precision"]), str(home.cache),
            str(self.file.resolve().parent), list(self.metrics),
            self.generation if needs_generation(self.metrics) else None, self.max_length_is_given,
            self.clock, self.decision.precision if self.decision else "",
        )  # fmt: skip

    def _largest(self, name: str) -> list[Setting]:
        """What a setting can be at most: its dimension's values or end, and the fixed value where that may count."""
        dimension = self.space.dimensions.get(name)
        values = [] if dimension is None else dimension.values if isinstance(dimension, Choice) else [dimension.last]
        is_always_searched = dimension is not None and name not in self.space.conditions
        return [*values, *([] if is_always_searched else [self.settings[name]])]

    def methods(self) -> tuple[str, ...]:
        """Those that trials may use, the baseline's first."""
        dimension = self.space.dimensions.get("method")
        if not isinstance(dimension, Choice):
            return (self.method,)
        named = [dimension.nearest(self.method), *dimension.values]
        return tuple(dict.fromkeys(map(str, [*named, self.method] if "method" in self.space.conditions else named)))

    def defaults(self) -> dict[str, Setting]:
        """Every setting, and the method, where no search decides it."""
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

    def most_trials(self) -> int:
        """How many trials there can be: as planned, and no more than the space has points."""
        return int(min(self.planned_trials(), self.space.most_points()))

    def examples_per_trial(self, train_rows: int, params: Mapping[str, Setting] | None = None) -> int:
        """The budget of a trial, in training examples seen; of the baseline without `params`.

        `max_steps` counts steps of the baseline's batch size, so that trials with other batch sizes do equal work.
        """
        baseline = self.baseline()
        settings = {**self.settings, **(baseline if params is None else params)}
        if settings["max_examples"] is not None:
            return int(settings["max_examples"])
        if settings["max_steps"] is not None:
            return int(settings["max_steps"]) * self._baseline_batch_size()
        return max(1, round(float(settings["max_epochs"] or 1) * train_rows))

    def _baseline_batch_size(self) -> int:
        return int({**self.settings, **self.baseline()}["batch_size"] or 1)

    def evaluations(self, train_rows: int) -> int:
        """Evaluations at equal shares of the full budget: as the file says, or as many as come nearest to one every
        `eval_steps` steps of the baseline's batch size."""
        if (steps := self.settings["eval_steps"]) is None:
            return int(self.settings["evaluations"] or 1)
        return max(1, round(self.largest_budget_examples(train_rows) / (int(steps) * self._baseline_batch_size())))

    def evaluation_rows(self, prepared: PreparedData) -> int | None:
        """How many validation rows evaluations inside a trial use; None for all of them.

        As the file says, or as many as cost at most `evaluation_share` of a trial's training, at least
        `FEWEST_EVALUATION_ROWS`. It follows from tokens, not from a clock: so it is the same on every machine. All rows
        are used where a trial's evaluations, with the one on all rows at its end, would save nothing.
        """
        rows, train_rows = prepared.rows["validation"], prepared.rows["train"]
        if (given := self.settings["evaluation_rows"]) is not None:
            return int(given) if int(given) < rows else None
        if not prepared.validation_tokens:
            return None
        evaluations = self.evaluations(train_rows)
        trained = self.largest_budget_examples(train_rows) * prepared.train_tokens / train_rows
        on_all = evaluations * prepared.validation_tokens * COST_OF_EVALUATION
        share = float(self.settings["evaluation_share"] or 1) * trained / on_all
        some = max(FEWEST_EVALUATION_ROWS, int(share * rows))
        return some if evaluations * some + rows < evaluations * rows else None

    def devices_per_trial(self) -> int:
        """The most devices that any trial may have."""
        return max(int(value or 1) for value in self._largest("devices"))

    def largest_budget_examples(self, train_rows: int) -> int:
        """The largest budget of any trial: shares of the budget are shares of this one."""
        searched = [name for name in BUDGETS if name in self.space.dimensions]
        points = [{name: value} for name in searched for value in self._largest(name)]
        return max(self.examples_per_trial(train_rows, point) for point in [self.baseline(), *points])

    def budget_setting(self) -> str:
        """The setting that bounds a trial, as the file calls it."""
        searched = [name for name in BUDGETS if name in self.space.dimensions]
        given = [name for name in ("max_examples", "max_steps") if self.settings[name] is not None]
        name = [*searched, *given, "max_epochs"][0]
        names = [a.name for a in ALIASES.values() if a.canonical == name and ("training", a.name) in self.written.lines]
        return [*names, name][0]

    def seed_of(self, repeat: int | None) -> int:
        """The seed of a finalist's repeat, which is none of the search's; without one the search's own."""
        return self.seed if repeat is None else self.seed + 1 + repeat

    def place(self, key: str) -> str:
        """The place of a key of the file, as `FILE:LINE: key.path`; any other text unchanged."""
        key, colon, rest = key.partition(": ")  # "data: FILE"
        path = tuple(key.split("."))
        if path == ("model",) and ("model", "source") in self.written.lines:
            path = ("model", "source")
        return (self.written.where(path) if path[0] in KEYS_OF_FINDINGS else key) + colon + rest

    def resolved(self) -> dict[str, Any]:
        """The whole config as plain values, defaults filled in: what MLflow and the study keep."""
        return {
            "name": self.name,
            "task": self.task,
            "model": asdict(self.model),
            "data": {
                **{split: asdict(source) for split, source in self.data.sources().items()},
                **self.data.columns,
                "validation_size": self.data.validation_size,
                "test_size": self.data.test_size,
                "split_seed": self.data.seed,
                **({} if self.data.documents == "file" else {"documents": self.data.documents}),
            },
            "method": self.method,
            "search_strategy": self.strategy.resolved(),
            "search_space": self.space.resolved(),
            "training": dict(self.settings),
            "metrics": list(self.metrics),
            "generation": asdict(self.generation),
            "objective": [asdict(objective) for objective in self.objectives],
            "constraints": dict(self.constraints),
            "pruner": self.pruner.resolved(),
            "budget": asdict(self.budget),
            "finalists": self.finalists.resolved() if self.finalists else None,
            "trials": {
                **asdict(self.retry_policy),
                **({} if self.memory_gb is None else {"memory_gb": self.memory_gb}),
            },
            "promote": self.promote.resolved() if self.promote else None,
            "seed": self.seed,
            "report_to": list(self.report_to),
            **({"nightly": asdict(self.nightly)} if self.nightly else {}),
            **({"experiment": self.experiment} if self.experiment else {}),
            # Only where there is any: an edit of such a file leaves trials out that ran the code as it was before.
            **({"code": [digest[:12] for digest in self.code]} if self.code else {}),
        }


def corner(config: SweepConfig, end: str, fixed: Mapping[str, Setting] | None = None) -> Point:
    """The smallest or largest point: every numeric dimension at its `low` or `high` end, categories as by default, and
    the dimensions that `fixed` names as it says."""

    def choose(name: str, dimension: Dimension) -> Setting:
        if fixed and name in fixed:
            return fixed[name]
        if isinstance(dimension, Choice):
            if all(isinstance(v, (int, float)) for v in dimension.values):
                return (min if end == "low" else max)(dimension.values)  # type: ignore[type-var]  # all are numbers
            return dimension.nearest(config.defaults()[name])
        return dimension.low if end == "low" else dimension.nearest(dimension.last)

    return config.space.point(choose)


def largest_point(config: SweepConfig) -> Point:
    """The point that takes most memory."""
    return corner(config, "high")
