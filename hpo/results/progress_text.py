"""What is said of trials while a sweep runs: evaluations, how they ended, settings, how long something takes. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from trainers.protocol.counted import counted
from trainers.protocol.events import TrialResult
from trainers.protocol.settings import Setting


def finished_line(number: int | str, result: TrialResult, metric: str, params: str, *, is_best: bool) -> str:
    """The line that stays on the terminal when a trial has ended: state, value, time and settings."""
    took = duration(result.seconds)
    if result.state == "failed":
        message = " ".join(result.message.split())
        return f"trial {number} failed ({result.cause}: {message}) after {took}  {params}"
    value = f"{metric} {result.value:.4f}" if result.value is not None else ""
    how = {
        "pruner": "pruned", "early_stopping": "stopped early", "budget": "done",
        "trial_minutes": "stopped by trial_minutes", "sweep_budget": "stopped by the budget",
    }[result.stopped_by]  # fmt: skip
    star = "  *best so far*" if is_best else ""
    return f"trial {number} {how}: {value} in {took}  {params}{star}"


def params_text(params: Mapping[str, Setting]) -> str:
    """Settings on one line, as `learning_rate=0.00046 lora_r=8`; `default configuration` where there are none."""
    return " ".join(f"{k}={setting_text(v)}" for k, v in params.items()) or "default configuration"


def setting_text(value: Setting) -> str:
    """A setting for people: floats with three significant digits, and null as the file calls it."""
    return "null" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def setting_of(params: Mapping[str, Setting], name: str) -> str:
    """A setting in a table of points; `-` for a point that does not have it."""
    return setting_text(params[name]) if name in params else "-"


def duration(seconds: float) -> str:
    """A duration for people, as `9 s`, `2 min 05 s` or `3 h 10 min`."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def evaluations_line(evaluations: int, some: int, rows: int) -> str:
    """How often a trial is evaluated, and on how many of the validation rows."""
    often = counted(evaluations, "evaluation")
    if some == rows:
        return f"{often} per trial, on all {rows:,} validation rows"
    return f"{often} per trial, on {some:,} of {rows:,} validation rows; on all of them at its end"
