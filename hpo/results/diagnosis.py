"""Plain advice from a trial's own numbers: what went wrong or short, and the setting to try. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from msgspec import Struct

from hpo.config.objective import Objective
from hpo.quoting import clipped, listed
from trainers.protocol.catalog import TASKS
from trainers.protocol.events import TrialResult
from trainers.protocol.settings import LORA_METHODS

ROSE = 0.05
"""A loss that ends so much above its best, as a share of it, has turned."""
STOOD = 0.005
"""One that changed by less than this share in all has not moved."""
GAINED = 0.01
"""A last step of the objective by more than this share: it was not done yet."""


class Advice(Struct, frozen=True):
    """`kind` groups trials with the same trouble; `found` has the trial's numbers.

    There may be one for each of thousands of trials, and msgspec makes it in a sixth of a dataclass's time.
    """

    kind: str
    found: str
    to_try: str


@dataclass(frozen=True)
class Knobs:
    """The settings that a trial has, by the names that its YAML uses: advice names no other."""

    budget: str = "max_epochs"
    warmup: str = "warmup_ratio"
    has_adapter_rank: bool = True
    """Whether its method reads lora_r and lora_dropout."""
    has_class_weights: bool = True


_DECIDING = ("max_examples", "max_steps", "warmup_steps", "method", "loss")
"""Settings of a trial that its `Knobs` follow from."""


def knobs(config: Mapping[str, Any], params: Mapping[str, Any], budget: str | None) -> Knobs:
    """Those of a trial: `config` is the sweep's as plain values, `budget` the name of its budget setting in the file;
    studies of before have none, and their settings tell."""
    settings = {**config.get("training", {}), **params}
    used = next((name for name in ("max_examples", "max_steps") if settings.get(name) is not None), "max_epochs")
    losses = TASKS[config["task"]].losses
    return Knobs(
        budget=budget or used,
        warmup="warmup_ratio" if settings.get("warmup_steps") is None else "warmup_steps",
        has_adapter_rank=str(params.get("method", config.get("method", "lora"))) in LORA_METHODS,
        has_class_weights="class-weighted" in losses and settings.get("loss") != "class-weighted",
    )


def knobs_of_trials(config: Mapping[str, Any], budget: str | None) -> Callable[[Mapping[str, Any]], Knobs]:
    """The same for many trials, by their settings: few of these decide, and most sweeps search none of them."""

    @cache
    def having(deciding: tuple[tuple[str, Any], ...]) -> Knobs:
        return knobs(config, dict(deciding), budget)

    return lambda params: having(tuple([(name, params[name]) for name in _DECIDING if name in params]))


def advice(result: TrialResult, objective: Objective, has: Knobs | None = None) -> list[Advice]:
    """What a finished trial's curve and metrics suggest; nothing where nothing is due."""
    has = has or Knobs()
    if result.cause == "diverged":
        return [Advice("diverged", result.message, f"a lower learning_rate, or more {has.warmup}")]
    if result.state != "complete":
        return []
    evaluated = [evaluation.metrics for evaluation in result.evaluations]
    losses = [metrics["loss"] for metrics in evaluated if "loss" in metrics]
    values = [metrics[objective.metric] for metrics in evaluated if objective.metric in metrics]
    turned = _turned(losses, has)
    stood = None if turned else _stood_still(losses, has)
    found = (turned, _one_label(result.metrics, has), _unfinished(values, objective, result.stopped_by, has), stood)
    return [one for one in found if one]


def _turned(losses: Sequence[float], has: Knobs) -> Advice | None:
    best = min(losses, default=0.0)
    if len(losses) < 3 or losses[-1] <= best + ROSE * abs(best):
        return None
    at = losses.index(best) + 1
    found = f"validation loss rose from {best:.3g} (evaluation {at} of {len(losses)}) to {losses[-1]:.3g}"
    less = "more lora_dropout or weight_decay, a smaller lora_r" if has.has_adapter_rank else "more weight_decay"
    return Advice("overfitting", found, f"fewer {has.budget}, {less}")


def _stood_still(losses: Sequence[float], has: Knobs) -> Advice | None:
    if len(losses) < 3 or max(losses) - min(losses) > STOOD * abs(losses[0]):
        return None
    to_try = "a higher learning_rate" + (" or lora_r" if has.has_adapter_rank else "")
    return Advice("no progress", f"validation loss stayed at {losses[-1]:.3g}", to_try)


def _unfinished(values: Sequence[float], objective: Objective, stopped_by: str, has: Knobs) -> Advice | None:
    if len(values) < 3 or stopped_by != "budget":
        return None
    *before, last = objective.sort_keys(values)
    if min(before) - last <= GAINED * abs(min(before)):
        return None
    found = f"{objective.metric} was still improving at the end ({values[-2]:.3g} to {values[-1]:.3g})"
    return Advice("unfinished", found, f"more {has.budget}")


def _one_label(metrics: Mapping[str, float], has: Knobs) -> Advice | None:
    scores = [name for name in metrics if name.startswith("f1/")]
    if len(scores) < 2 or len(predicted := [name for name in scores if metrics[name] > 0]) > 1:
        return None
    but = f" but {clipped(predicted[0].removeprefix('f1/'))}" if predicted else ""
    found = f"no label{but} is predicted right"
    weights = "loss: class-weighted, " if has.has_class_weights else ""
    return Advice("one label", found, f"{weights}a higher learning_rate, or more {has.budget}")


def collected(trials: Iterable[tuple[int, Sequence[Advice]]]) -> list[str]:
    """One line for each kind of trouble: the trials that have it, what the first of them shows, what to try.

    `trials` are numbers with the advice for each.
    """
    by_kind: dict[str, list[tuple[int, Advice]]] = {}
    for number, given in trials:
        for one in given:
            by_kind.setdefault(one.kind, []).append((number, one))
    lines = []
    for kind, found in by_kind.items():
        which = f"trial{'s' * (len(found) > 1)} {listed(number for number, _ in found)}"
        number, first = found[0]
        where = f"in trial {number} " * (len(found) > 1)
        lines.append(f"{kind} in {which}: {where}{first.found}; try {first.to_try}")
    return lines
