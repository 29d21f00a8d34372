"""What the charts of a comparison are drawn from, as one JSON value. Pure."""

from __future__ import annotations

import math
from typing import Any

from hpo.report.charts import is_finite
from hpo.report.comparison import Comparison, confirmed
from hpo.report.facts import ReportFacts


def comparison_charts(comparison: Comparison) -> dict[str, Any]:
    """Everything that is drawn."""
    first = comparison.sweeps[0].summary.objective
    return {
        "metric": " or ".join(comparison.metrics),
        "maximize": first.direction == "maximize",
        "sweeps": [_sweep(facts) for facts in comparison.sweeps],
    }


def _sweep(facts: ReportFacts) -> dict[str, Any]:
    champion, interval = facts.summary.champion, confirmed(facts)
    trial = next((t for t in facts.summary.trials if champion and t.number == champion.number), None)
    return {
        "name": facts.summary.sweep,
        "value": champion.value if champion else None,
        "interval": [interval.mean, interval.low, interval.high] if interval and is_finite(interval) else None,
        "best": _best_so_far(facts),
        "trials": len(facts.summary.trials),
        "curve": trial.curve if trial else [],
    }


def _best_so_far(facts: ReportFacts) -> list[list[float]]:
    """[trials so far, best value] wherever a complete trial was better than all before it, by number.

    One that exceeds a constraint leads nothing.
    """
    objective, steps = facts.summary.objective, []
    best: float | None = None
    for place, trial in enumerate(facts.summary.trials, 1):
        value = trial.value if trial.state == "complete" and not trial.exceeds else None
        if value is not None and math.isfinite(value) and (best is None or objective.better(value, best)):
            best = value
            steps.append([place, value])
    return steps
