"""What no key of the file can know alone: settings that exclude each other, grids without end, impossible points."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hpo.config.aliases import as_written
from hpo.config.space import SearchSpace
from hpo.config.strategy import complete_point, is_countable
from hpo.config.sweep_config import SweepConfig
from hpo.config.yaml_source import Section
from trainers.protocol.catalog import TASKS
from trainers.protocol.settings import BUDGETS


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
        _check_enqueued(root, config)


def _check_exclusive(root: Section, space: SearchSpace, given: Mapping[str, str]) -> None:
    """Settings that say the same in two ways; `given` is each setting under `training:` -> its key in the file."""

    def place(name: str) -> tuple[str, str]:
        return ("search_space", name) if name in space.dimensions else ("training", given[name])

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
