"""What the page's charts are drawn from: one JSON value, with the numbers of `hpo show --json`. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from hpo.config.dimensions import Choice, Dimension
from hpo.config.objective import gate_of
from hpo.config.space import SearchSpace
from hpo.report.facts import ReportFacts
from hpo.results.outcome import Interval
from hpo.results.summary import SweepSummary, TrialSummary
from hpo.results.timeline import phases
from trainers.protocol.settings import Setting

MOST_IN_PAIRS = 3
"""Settings of which every pair is drawn."""


def charts(facts: ReportFacts) -> dict[str, Any]:
    """Everything that is drawn. Short names in what repeats for each trial: a page may hold 10,000 of them. A number
    that JSON does not have is null there."""
    summary = facts.summary
    gate = gate_of(summary.task, summary.objective)  # its direction may differ from the objective's
    names = list(dict.fromkeys(name for trial in summary.trials for name in trial.params))
    return {
        "metric": summary.objective.metric,
        "maximize": summary.objective.direction == "maximize",
        "dimensions": [_dimension(name, facts.space) for name in names],
        "trials": [_trial(trial, names) for trial in summary.trials],
        "champion": summary.champion.number if summary.champion else None,
        "baseline": summary.baseline.number if summary.baseline else None,
        "importances": [{"name": i.dimension, "share": i.share, "low": i.low, "high": i.high}
                        for i in facts.importances],
        "finalists": _finalists(summary),
        "variants": _variants(summary),
        "gate": {"metric": gate.metric, "maximize": gate.direction == "maximize"},
        "pairs": _pairs(facts, names),
        "timeline": _timeline(summary),
    }  # fmt: skip


def _dimension(name: str, space: SearchSpace) -> dict[str, Any]:
    dimension = space.dimensions.get(name)  # None for what an earlier revision searched
    return {"name": name, "log": _is_log(dimension), "values": _values(dimension)}


def _is_log(dimension: Dimension | None) -> bool:
    return dimension is not None and not isinstance(dimension, Choice) and dimension.log


def _values(dimension: Dimension | None) -> list[Any] | None:
    """Of a choice, in the order of the file; None for a number."""
    return [_place(value) for value in dimension.values] if isinstance(dimension, Choice) else None


def _trial(trial: TrialSummary, names: Sequence[str]) -> dict[str, Any]:
    return {
        "n": trial.number,
        "s": trial.state,
        "v": trial.value,
        "p": [_place(trial.params[name]) if name in trial.params else None for name in names],
        "c": trial.curve,
        **({"e": 1} if trial.stopped_by == "early_stopping" else {}),
    }


def _place(value: Setting) -> Setting:
    """A setting on its axis: null is a value there, and no value at all is a gap."""
    return "null" if value is None else value


def _pairs(facts: ReportFacts, names: Sequence[str]) -> list[list[int]]:
    """Pairs of the settings that matter most, by their places among `names`."""
    first = [i.dimension for i in facts.importances if i.dimension in names]
    chosen = [*first, *(name for name in names if name not in first)][:MOST_IN_PAIRS]
    return [[names.index(a), names.index(b)] for a, b in combinations(chosen, 2)]


def _timeline(summary: SweepSummary) -> dict[str, Any]:
    """Attempts in the order in which they ended, each with the place of its phase."""
    found = phases(summary.timeline)
    place = {phase.began: number for number, phase in enumerate(found)}
    finals = {stint.phase for stint in summary.timeline if stint.repeat is not None}
    return {
        "phases": [{"began": p.began, "ended": p.ended, "workers": p.workers,
                    "what": "finalists" if p.began in finals else "search"} for p in found],
        "stints": [[s.trial, s.repeat, s.slot, place[s.phase], s.began, s.ended, s.how] for s in summary.timeline],
    }  # fmt: skip


def _finalists(summary: SweepSummary) -> list[dict[str, Any]]:
    """Those with an interval: it has no ends where the metric is no number for some of the rows."""
    contestants = summary.finalists.contestants if summary.finalists else []
    return [
        {"trial": c.trial, "baseline": c.is_baseline, **vars(c.interval)}
        for c in contestants if c.interval and is_finite(c.interval)
    ]  # fmt: skip


def _variants(summary: SweepSummary) -> list[dict[str, Any]]:
    if summary.torch is None:
        return []
    metric = gate_of(summary.task, summary.objective).metric
    points = [{"name": "torch", "value": summary.torch.metrics[metric], "ms": summary.torch.latency_p50_ms,
               "passed": None}]  # fmt: skip
    for judged in summary.variants:
        if (m := judged.measurement) is not None:
            points.append({"name": judged.variant, "value": m.metrics[metric], "ms": m.latency_p50_ms,
                           "passed": judged.passed})  # fmt: skip
    return points


def is_finite(interval: Interval) -> bool:
    """Whether an interval can be drawn."""
    return all(map(math.isfinite, (interval.mean, interval.low, interval.high)))
