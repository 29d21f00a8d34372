"""Plain advice from a trial's own numbers: what went wrong or short, and the setting to try. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpo.objective import Objective
from trainers.spec import TrialResult

ROSE = 0.05
"""A loss that ends so much above its best, as a share of it, has turned."""
STOOD = 0.005
"""One that changed by less than this share in all has not moved."""
GAINED = 0.01
"""A last step of the objective by more than this share: it was not done yet."""


@dataclass(frozen=True)
class Advice:
    """`kind` groups trials with the same trouble; `found` has the trial's numbers."""

    kind: str
    found: str
    to_try: str


def advice(result: TrialResult, objective: Objective) -> list[Advice]:
    """What a finished trial's curve and metrics suggest; nothing where nothing is due."""
    if result.cause == "diverged":
        return [Advice("diverged", result.message, "a lower learning_rate, or more warmup_ratio")]
    if result.state != "complete":
        return []
    losses = [e.metrics["loss"] for e in result.evaluations if "loss" in e.metrics]
    values = [e.metrics[objective.metric] for e in result.evaluations if objective.metric in e.metrics]
    found = [_turned(losses), _one_label(result.metrics), _unfinished(values, objective, result.stopped_by)]
    if not found[0]:
        found.append(_stood_still(losses))
    return [one for one in found if one]


def _turned(losses: Sequence[float]) -> Advice | None:
    best = min(losses, default=0.0)
    if len(losses) < 3 or losses[-1] <= best + ROSE * abs(best):
        return None
    at = losses.index(best) + 1
    found = f"validation loss rose from {best:.3g} (evaluation {at} of {len(losses)}) to {losses[-1]:.3g}"
    return Advice("overfitting", found, "fewer max_epochs, more lora_dropout or weight_decay, a smaller lora_r")


def _stood_still(losses: Sequence[float]) -> Advice | None:
    if len(losses) < 3 or max(losses) - min(losses) > STOOD * abs(losses[0]):
        return None
    return Advice("no progress", f"validation loss stayed at {losses[-1]:.3g}", "a higher learning_rate or lora_r")


def _unfinished(values: Sequence[float], objective: Objective, stopped_by: str) -> Advice | None:
    if len(values) < 3 or stopped_by != "budget":
        return None
    *before, last = [objective.sort_key(value) for value in values]
    if min(before) - last <= GAINED * abs(min(before)):
        return None
    found = f"{objective.metric} was still improving at the end ({values[-2]:.3g} to {values[-1]:.3g})"
    return Advice("unfinished", found, "more max_epochs")


def _one_label(metrics: Mapping[str, float]) -> Advice | None:
    scores = {name.removeprefix("f1/"): value for name, value in metrics.items() if name.startswith("f1/")}
    predicted = [name for name, value in scores.items() if value > 0]
    if len(scores) < 2 or len(predicted) > 1:
        return None
    found = f"every row is predicted as {predicted[0]}" if predicted else "no label is predicted right"
    return Advice("one label", found, "loss: class-weighted, a higher learning_rate, or more max_epochs")


def collected(trials: Sequence[Mapping[str, object]]) -> list[str]:
    """One line for each kind of trouble: the trials that have it, what the first of them shows, what to try."""
    by_kind: dict[str, list[tuple[object, Mapping[str, str]]]] = {}
    for trial in trials:
        given = trial["advice"]
        assert isinstance(given, list)  # noqa: S101  # as `hpo.report.show` made it
        for one in given:
            by_kind.setdefault(one["kind"], []).append((trial["number"], one))
    lines = []
    for kind, found in by_kind.items():
        numbers = ", ".join(str(number) for number, _ in found)
        which = f"trial{'s' * (len(found) > 1)} {numbers}"
        lines.append(f"{kind} in {which}: {found[0][1]['found']}; try {found[0][1]['to_try']}")
    return lines
