"""Judges measured numbers: whether the champion, and which of its ONNX variants, may be released. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hpo.config.objective import Objective
from hpo.results.released import Judged
from trainers.protocol.messages import Measurement


def apply_gate(
    torch_metrics: Mapping[str, float],
    measurements: Sequence[Measurement],
    failures: Mapping[str, str],
    objective: Objective,
    max_drop: float,
) -> list[Judged]:
    """Every variant's verdict: it passes when its metric is at most `max_drop` (a share) worse than torch's.

    `failures` are variants that could not be written or run, with the reason.
    """
    reference = torch_metrics[objective.metric]
    judged = []
    for m in measurements:
        drop = objective.relative_drop(m.metrics[objective.metric], reference)
        passed = drop <= max_drop
        sign = -1 if objective.direction == "maximize" else 1  # shown is how the metric itself moved
        change = round(sign * drop, 4) + 0.0  # no minus before a zero
        reason = f"{objective.metric} {change:+.2%} against torch, allowed {sign * max_drop:+.2%}"
        judged.append(Judged(m.variant, m, drop, passed, reason))
    return judged + [Judged(name, None, None, False, why) for name, why in failures.items()]


def choose(judged: Sequence[Judged]) -> Judged | None:
    """The fastest variant (median latency) that passed, or None."""
    passed = [j for j in judged if j.passed and j.measurement]
    return min(passed, key=lambda j: j.measurement.latency_p50_ms if j.measurement else 0.0, default=None)


def useless(objective: Objective, value: float, constant: float) -> bool:
    """Whether a champion is no better than one answer to everything; where that one is unknown (NaN), it is not."""
    return not math.isnan(constant) and not objective.better(value, constant)
