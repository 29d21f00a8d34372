"""A sweep's YAML file to a `SweepConfig`: checked against the catalog, every problem reported at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpo.config.aliases import as_written, resolve_aliases
from hpo.config.budget import parse_budget
from hpo.config.dimensions import Choice
from hpo.config.extra_metrics import parse_generation, parse_metrics
from hpo.config.model_and_data import parse_data, parse_model
from hpo.config.objective import parse_constraints, parse_objectives
from hpo.config.pruner import parse_pruner
from hpo.config.space import SearchSpace, parse_space, refusal, typed
from hpo.config.strategy import complete_point, is_countable, parse_strategy
from hpo.config.sweep_config import Finalists, Promote, RetryPolicy, SweepConfig
from hpo.config.user_code import own_file
from hpo.config.yaml_source import Section, load
from hpo.errors import ConfigError, did_you_mean
from hpo.paths import NAME_PATTERN, Home
from trainers.protocol.catalog import GENERATED, METHOD, METHODS, TASKS, default_settings
from trainers.protocol.settings import BUDGETS, FIELDS, Field, Setting

VIEWS = ("mlflow", "tensorboard")
"""What `report_to` may name."""
_SWITCHES = {"on": "true", "yes": "true", "off": "false", "no": "false"}
"""What YAML 1.1 takes for true and false, and YAML 1.2 for text."""


def load_config(file: Path, home: Home) -> SweepConfig:
    """Read and check a sweep's YAML. Raises `ConfigError` with every problem of the file."""
    root = load(file)
    task = _required_choice(root, "task", TASKS)
    method = root.one_of("method", METHODS, "lora")
    methods = _methods(root, method)
    fields = {n: f for n, f in FIELDS.items() if not f.methods or set(methods) & set(f.methods)}
    # Where several methods read a setting, the baseline's decides its default.
    by_rank = [*(m for m in methods if m != method), *(m for m in methods if m == method)]
    defaults = {n: v for m in by_rank for n, v in default_settings(task or "text-classification", m).items()}
    given = _training(root, fields, " or ".join(methods))
    name = _name(root, "name", file.stem)
    space = parse_space(root.section("search_space"), {**fields, METHOD.name: METHOD})
    metrics = parse_metrics(root, task)
    objectives = parse_objectives(root, task, metrics)
    # A metric of generated text is measured where the objective names it, too.
    asked = [o.metric for o in objectives if o.metric in GENERATED]
    config = SweepConfig(
        file=file,
        name=name,
        task=task,
        model=parse_model(root, file, home),
        data=parse_data(root, file, home, task),
        method=method,
        strategy=parse_strategy(root, space),
        space=space,
        settings={**defaults, **given},
        objectives=objectives,
        metrics=tuple(dict.fromkeys([*metrics, *asked])),
        generation=parse_generation(root),
        constraints=parse_constraints(root),
        pruner=parse_pruner(root, objectives),
        budget=parse_budget(root),
        finalists=_finalists(root),
        retry_policy=_retry_policy(root),
        promote=_promote(root, name, task),
        report_to=_report_to(root),
        seed=root.whole("seed", 0, 0, most=(1 << 63) - 1),
        written=root.written,
        max_length_is_given="max_length" in given or "max_length" in space.dimensions,
        promote_is_given=root.raw("promote") is not None,
    )
    root.finish()
    config = dataclasses.replace(config, code=_own_code(root, config))
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
        return ""
    return section.one_of(key, known, "")


def _name(section: Section, key: str, default: str) -> str:
    name = section.text(key, default) or default
    if not NAME_PATTERN.fullmatch(name):
        section.got(name, "expected letters, digits, '.', '_' and '-'", key)
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
        if why := refusal(owner, leaf, field):
            owner.got(value, why, leaf)
        else:
            given[name] = typed(field, value)
    given |= {name: typed(FIELDS[name], value) for name, value in resolve_aliases(section).items()}
    for name in section.names():
        if name in FIELDS and name not in fields:
            section.raw(name)
            section.problem(f"is not a setting of method {method}", "remove it", name)
    nested.finish()
    section.finish()
    return given


def _finalists(root: Section) -> Finalists | None:
    if root.raw("finalists") is None:
        return None
    if (section := _switched(root, "finalists")) is None:
        return None
    top, seeds = section.whole("top", 3, 1, 100), section.whole("seeds", 3, 2, 100)
    section.finish()
    return Finalists(top, seeds)


def _switched(root: Section, key: str) -> Section | None:
    """A section that `false` turns off, and that `true` leaves at its defaults."""
    given = root.raw(key)
    if isinstance(given, str) and (meant := _SWITCHES.get(given.lower())):
        root.got(given, f"write {meant}", key)
        return None
    if given is False:
        return None
    return root.child(key, {}) if given is True else root.section(key)


def _retry_policy(root: Section) -> RetryPolicy:
    section = root.section("trials")
    retries = section.whole("retries", 2, 0, 1000)
    stall = section.number("stall_minutes", 30, lambda v: v > 0, "a number above 0")
    section.finish()
    return RetryPolicy(retries, float(stall))


def _promote(root: Section, name: str, task: str) -> Promote | None:
    """What is promoted at the end, by default where the task's models can be released."""
    given = root.raw("promote")
    if task and not TASKS[task].variants:
        if given not in (None, False):
            root.problem("is given", f"models of {task} are not released yet: leave it out", "promote")
        return None
    if (section := _switched(root, "promote")) is None:
        return None
    promoted = _name(section, "name", name) if "name" in section else name
    max_drop = section.number("max_drop", 0.01, lambda v: 0 <= v < 1, "a share from 0 to 1")
    replace, allow_useless = section.flag("replace", False), section.flag("allow_useless", False)
    section.finish()
    return Promote(promoted, max_drop, replace, allow_useless)


def _report_to(root: Section) -> tuple[str, ...]:
    """Where trials are shown; MLflow has them in any case."""
    given = root.raw("report_to")
    if given is None:
        return ()
    if not isinstance(given, list):
        root.got(given, "expected a list, e.g. [tensorboard]", "report_to")
        return ()
    for name in given:
        if name not in VIEWS:
            root.got(name, did_you_mean(str(name), VIEWS), "report_to")
    return tuple(name for name in VIEWS if name in given)


def _own_code(root: Section, config: SweepConfig) -> tuple[str, ...]:
    """Hashes of the user's files that `loss` and `metrics` name; each must lie below the YAML's folder."""
    dimension = config.space.dimensions.get("loss")
    searched = [str(v) for v in dimension.values] if isinstance(dimension, Choice) else []
    folder, hashes = config.file.resolve().parent, []
    for name in dict.fromkeys([str(config.settings["loss"]), *searched]):
        key = ("search_space", "loss") if name in searched else ("training", "loss")
        losses = TASKS[config.task].losses if config.task else (name,)
        if ":" in name:
            hashes.append(own_file(root, name, folder, *key))
        elif name not in losses:
            right = f"{config.task} has {', '.join(losses)}, or one of yours: FILE.py:FUNCTION"
            root.got(name, right, *key)
    hashes += [own_file(root, name, folder, "metrics") for name in config.metrics if ":" in name]
    return tuple(hash_ for hash_ in hashes if hash_)


def _check_together(root: Section, config: SweepConfig) -> None:
    """What no key can know alone."""
    space, training = config.space, root.raw("training")
    given = as_written(training) if isinstance(training, dict) else {}

    def place(name: str) -> tuple[str, str]:
        return ("search_space", name) if name in space.dimensions else ("training", given[name])

    if config.strategy.type == "grid":
        _check_grid(root, space)
    if len(budgets := [n for n in BUDGETS if n in space.dimensions or n in given]) > 1:
        found = f"{' and '.join(given.get(n, n) for n in budgets)} are given or searched"
        root.problem(found, "expected one of them", *place(budgets[-1]))
    if "eval_steps" in given and "evaluations" in given:
        root.problem("evaluations is given too", "expected one of them", *place("eval_steps"))
    if "lora_alpha" in given and "alpha_ratio" in space.dimensions:
        found = "is searched, but training.lora_alpha decides"
        root.problem(found, "remove one of the two", "search_space", "alpha_ratio")
    if "lora_alpha" in space.dimensions and "alpha_ratio" in space.dimensions:
        found = "lora_alpha and alpha_ratio are both searched"
        root.problem(found, "expected one of them", "search_space", "alpha_ratio")
    for name in TASKS[config.task].unsearchable if config.task else ():
        if name in space.dimensions:
            root.problem(f"is not searched with {config.task}", "give it under training:", "search_space", name)
    if config.settings.get("packing"):
        _check_packing(root, config)
    if not root.problems:
        _check_enqueued(root, config)


def _check_packing(root: Section, config: SweepConfig) -> None:
    key = ("training", "packing")
    if config.task and not TASKS[config.task].packs:
        able = ", ".join(name for name, task in TASKS.items() if task.packs)
        root.problem(f"rows of {config.task} are not packed", f"remove it; it goes with {able}", *key)
    noise = "neftune_noise_alpha"
    if config.settings[noise] is not None or noise in config.space.dimensions:
        root.problem(f"{noise} depends on the length of a row", "remove one of the two", *key)


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
