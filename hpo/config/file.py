"""A sweep's YAML file to a `SweepConfig`: checked against the catalog, every problem reported at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from hpo.config.budget import parse_budget
from hpo.config.checks import check_together
from hpo.config.extra_metrics import parse_generation, parse_metrics
from hpo.config.keys import SWEEP_NAME, Described, OneOf, Whole
from hpo.config.model_and_data import parse_data, parse_model
from hpo.config.nightly import parse_nightly
from hpo.config.objective import parse_constraints, parse_objectives
from hpo.config.pruner import parse_pruner
from hpo.config.run import parse_run
from hpo.config.small_sections import (
    parse_experiment,
    parse_finalists,
    parse_name,
    parse_promote,
    parse_report_to,
    parse_trials,
)
from hpo.config.space_section import parse_space
from hpo.config.strategy import parse_strategy
from hpo.config.sweep_config import SweepConfig
from hpo.config.training import parse_training
from hpo.config.user_code import own_code
from hpo.config.yaml_source import Section, load
from hpo.errors import ConfigError, Problem
from hpo.paths import Home
from trainers.protocol.catalog import GENERATED, METHOD, METHODS, TASKS, default_settings
from trainers.protocol.settings import FIELDS, Setting

NAME = Described("name", None, "name of the sweep", shown="the file's name", described=SWEEP_NAME)
TASK = OneOf("task", "", "what the model learns to do", choices=tuple(TASKS), is_required=True)
METHOD_KEY = OneOf("method", METHOD.default, "how the base model is made trainable", choices=tuple(METHODS))
SEED = Whole("seed", 0, "of sampler, head, adapter and data order: the same in every trial", low=0, most=(1 << 63) - 1)


def load_config(file: Path, home: Home) -> SweepConfig:
    """Read and check a sweep's YAML. Raises `ConfigError` with every problem of the file."""
    config, problems = read_config(file, home)
    if problems:
        raise ConfigError(problems)
    return config


def read_config(file: Path, home: Home) -> tuple[SweepConfig, list[Problem]]:
    """A sweep's YAML with every problem of it, where each wrong section has its default.

    Raises `ConfigError` where it cannot be read at all.
    """
    root = load(file)
    config = _parse(root, file, home)
    root.finish()
    config = dataclasses.replace(config, code=own_code(root, config))
    check_together(root, config)
    return config, root.problems


def says_whose_nights(file: Path) -> bool:
    """Whether what nights need of a file is right, whatever else is wrong: its name, and who hears of them.

    Raises `ConfigError` where it cannot be read at all.
    """
    root = load(file)
    parse_name(root, file.stem)
    parse_nightly(root, file.parent)
    return not root.problems


def _parse(root: Section, file: Path, home: Home) -> SweepConfig:
    """Every section by itself; where one is wrong, its default stands in for it."""
    task, method = _parse_task(root), METHOD_KEY.read(root)
    methods = _methods(root, method)
    fields = {n: f for n, f in FIELDS.items() if not f.methods or set(methods) & set(f.methods)}
    training = parse_training(root, fields, " or ".join(methods))
    name = parse_name(root, file.stem)
    space = parse_space(root.section("search_space"), {**fields, METHOD.name: METHOD})
    metrics = parse_metrics(root, task)
    objectives = parse_objectives(root, task, metrics)
    retry_policy, memory_gb = parse_trials(root)
    # A metric of generated text is measured where the objective names it, too.
    asked = [o.metric for o in objectives if o.metric in GENERATED]
    return SweepConfig(
        file=file,
        name=name,
        task=task,
        model=parse_model(root, file, home),
        data=parse_data(root, file, home, task),
        method=method,
        strategy=parse_strategy(root, space),
        space=space,
        settings={**_defaults(task, methods), **training},
        objectives=objectives,
        metrics=tuple(dict.fromkeys([*metrics, *asked])),
        generation=parse_generation(root),
        constraints=parse_constraints(root),
        pruner=parse_pruner(root, objectives, are_known=bool(task)),
        budget=parse_budget(root),
        finalists=parse_finalists(root),
        retry_policy=retry_policy,
        memory_gb=memory_gb,
        run=parse_run(root),
        promote=parse_promote(root, name, task),
        report_to=parse_report_to(root),
        nightly=parse_nightly(root, file.parent),
        experiment=parse_experiment(root),
        seed=SEED.read(root),
        written=root.written,
        max_length_is_given="max_length" in training or "max_length" in space.dimensions,
        promote_is_given=root.raw("promote") is not None,
    )


def _parse_task(root: Section) -> str:
    if root.raw("task") is None:
        root.problem("is missing", f"expected one of {', '.join(TASKS)}", "task")
        return ""
    return str(TASK.read(root))


def _methods(root: Section, method: str) -> tuple[str, ...]:
    """The methods that trials may use, the baseline's first; all there are where a name is wrong: any may be meant."""
    space, given = root.raw("search_space"), root.raw(METHOD.name)
    searched = space.get(METHOD.name) if isinstance(space, dict) else None
    values = searched.get("values") if isinstance(searched, dict) else searched
    named = [value for value in (values if isinstance(values, list) else [values]) if value is not None]
    known = tuple(METHODS)
    if any(value not in known for value in [*named, *([] if given is None else [given])]):
        return known
    if not named or (isinstance(searched, dict) and "when" in searched):
        named.append(method)
    return tuple(dict.fromkeys([*(name for name in named if name == method), *named]))


def _defaults(task: str, methods: tuple[str, ...]) -> Mapping[str, Setting]:
    """Settings at their defaults; where several methods read one, the first decides."""
    return {n: v for m in reversed(methods) for n, v in default_settings(task or "text-classification", m).items()}
