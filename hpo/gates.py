"""Judges measured numbers: which ONNX variant of the champion may be released. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpo.objective import Objective
from trainers.spec import Exported, Measurement


@dataclass(frozen=True)
class Judged:
    """One variant with its numbers and the verdict on it."""

    variant: str
    measurement: Measurement | None
    drop: float | None
    """How much worse its metric is than torch's, as a share of torch's; negative when better."""
    passed: bool
    reason: str


def judge(
    exported: Exported, measurements: Sequence[Measurement], objective: Objective, max_drop: float
) -> list[Judged]:
    """Every variant's verdict: it passes when its metric is at most `max_drop` (a share) worse than torch's."""
    reference = exported.metrics[objective.metric]
    judged = []
    for m in measurements:
        drop = objective.relative_drop(m.metrics[objective.metric], reference)
        passed = drop <= max_drop
        reason = f"{objective.metric} {-drop:+.2%} against torch, allowed {-max_drop:.2%}"
        judged.append(Judged(m.variant, m, drop, passed, reason))
    failures = [Judged(name, None, None, False, why) for name, why in exported.failures.items()]
    return judged + failures


def choose(judged: Sequence[Judged]) -> Judged | None:
    """The fastest variant (median latency) that passed, or None."""
    passed = [j for j in judged if j.passed and j.measurement]
    return min(passed, key=lambda j: j.measurement.latency_p50_ms if j.measurement else 0.0, default=None)
