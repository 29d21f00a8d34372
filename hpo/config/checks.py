"""What no key of the file can know alone: settings that exclude each other, grids without end, impossible points."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hpo.config.aliases import as_written
from hpo.config.dimensions import Choice
from hpo.config.space import SearchSpace
from hpo.config.strategy import complete_point, is_countable
from hpo.config.sweep_config import SweepConfig
from hpo.config.yaml_source import Section
from hpo.quoting import listed
from trainers.protocol.catalog import METHOD, TASKS
from trainers.protocol.settings import BUDGETS, FIELDS, Setting

FOCAL = "focal"
"""A loss of the tasks that minimize cross-entropy, and of no others."""
READ_BY_LOSS = {"focal_gamma": FOCAL, "contrastive_margin": "contrastive", "label_smoothing_factor": "default"}
"""Setting -> the one loss that reads it."""


def check_together(root: Section, config: SweepConfig) -> None:
    """Report what contradicts itself between sections to `root`."""
    space, training = config.space, root.raw("training")
    given = as_written(training) if isinstance(training, dict) else {}
    if config.strategy.type == "grid":
        _check_grid(root, space)
    _check_exclusive(root, space, given)
    if "max_length" in space.dimensions and "text_pair" in config.data.columns:
        found = "is not searched with pairs of texts: a shorter one would cut the second text off"
        root.problem(found, "give it under training:", "search_space", "max_length")
    if config.settings.get("packing"):
        _check_packing(root, config)
    if not root.problems:
        _check_effect(root, config)
        _check_enqueued(root, config)


def _check_exclusive(root: Section, space: SearchSpace, given: Mapping[str, str]) -> None:
    """Settings that say the same in two ways; `given` is each setting under `training:` -> its key in the file."""

    def place(name: str) -> tuple[str, str]:
        return ("search_space", name) if name in space.dimensions else ("training", given[name])

    if len(budgets := [n for n in BUDGETS if n in space.dimensions or n in given]) > 1:
        found = f"{' and '.join(given.get(n, n) for n in budgets)} are given or searched"
        root.problem(found, "expected one of them", *place(budgets[-1]))
    for one, other in (("eval_steps", "evaluations"), ("evaluation_rows", "evaluation_share")):
        if one in given and other in given:
            root.problem(f"{other} is given too", "expected one of them", *place(one))
    for decides, searched in (("lora_alpha", "alpha_ratio"), ("warmup_steps", "warmup_ratio")):
        if decides in given and searched in space.dimensions:
            found = f"is searched, but training.{decides} decides"
            root.problem(found, "remove one of the two", "search_space", searched)
    if "lora_alpha" in space.dimensions and "alpha_ratio" in space.dimensions:
        found = "lora_alpha and alpha_ratio are both searched"
        root.problem(found, "expected one of them", "search_space", "alpha_ratio")


def _check_packing(root: Section, config: SweepConfig) -> None:
    key = ("training", "packing")
    if config.task and not TASKS[config.task].packs:
        able = ", ".join(name for name, task in TASKS.items() if task.packs)
        root.problem(f"rows of {config.task} are not packed", f"remove it; it goes with {able}", *key)
    noise = "neftune_noise_alpha"
    if config.settings[noise] is not None or noise in config.space.dimensions:
        root.problem(f"{noise} depends on the length of a row", "remove one of the two", *key)


def _check_effect(root: Section, config: SweepConfig) -> None:
    """Dimensions that no trial reads: the search would take equal trials for different ones."""
    space, losses = config.space, _values_of(config, "loss")
    for name, dimension in space.dimensions.items():
        needed, readers = READ_BY_LOSS.get(name), FIELDS[name].methods if name in FIELDS else ()
        methods = space.conditions.get(name, {}).get(METHOD.name, ())
        if dimension.size() > 1 and needed and needed not in losses:
            root.problem(f"changes nothing: no trial has loss: {needed}", "remove it", "search_space", name)
        if readers and methods and not set(methods) & set(readers):
            found = f"{listed(methods)} never read{'s' * (len(methods) == 1)} {name}"
            root.problem(found, f"expected one of {listed(readers)}", "search_space", name, "when", METHOD.name)
    smoothing = "label_smoothing_factor"
    if config.task and FOCAL not in TASKS[config.task].losses and any(_values_of(config, smoothing)):
        section = "search_space" if smoothing in space.dimensions else "training"
        root.problem(f"the loss of {config.task} is no cross-entropy", "remove it", section, smoothing)


def _values_of(config: SweepConfig, name: str) -> set[Setting]:
    """Values that a setting has in some trial; of an interval its ends."""
    dimension = config.space.dimensions.get(name)
    fixed = {config.settings[name]}
    if dimension is None:
        return fixed
    searched = dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.last)
    return {*searched, *(fixed if name in config.space.conditions else ())}


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
