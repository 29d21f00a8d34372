"""Gates on measured numbers: whether the champion, and which of its ONNX variants, may be released. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hpo.config.objective import Objective
from hpo.results.released import VariantVerdict
from trainers.protocol.events import Measurement


def apply_gate(
    torch_metrics: Mapping[str, float],
    measurements: Sequence[Measurement],
    failures: Mapping[str, str],
    objective: Objective,
    max_drop: float,
) -> list[VariantVerdict]:
    """The verdict on every variant: it passes when its metric is at most `max_drop` (a share) worse than torch's.

    `failures` maps variants that could not be exported or run to the reason.
    """
    reference = torch_metrics[objective.metric]
    verdicts = []
    for m in measurements:
        drop = objective.relative_drop(m.metrics[objective.metric], reference)
        passed = drop <= max_drop
        sign = -1 if objective.direction == "maximize" else 1  # the reason shows the change of the metric itself
        change = round(sign * drop, 4) + 0.0  # -0.0 becomes 0.0
        reason = f"{objective.metric} {change:+.2%} against torch, allowed {sign * max_drop:+.2%}"
        verdicts.append(VariantVerdict(m.variant, m, drop, passed, reason))
    return verdicts + [VariantVerdict(name, None, None, False, why) for name, why in failures.items()]


def choose(verdicts: Sequence[VariantVerdict]) -> VariantVerdict | None:
    """The fastest variant (by median latency) that passed, or None."""
    passed = [v for v in verdicts if v.passed and v.measurement]
    return min(passed, key=lambda v: v.measurement.latency_p50_ms if v.measurement else 0.0, default=None)


def useless(objective: Objective, value: float, constant: float) -> bool:
    """Whether a champion with `value` is no better than a model that always gives one answer and has `constant`.

    False where `constant` is NaN: it is unknown then.
    """
    return not math.isnan(constant) and not objective.better(value, constant)
