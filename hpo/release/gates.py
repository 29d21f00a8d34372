"""Gates on measured numbers: whether the champion, and which of its ONNX variants, may be released. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hpo.config.objective import Objective
from hpo.results.released import VariantVerdict
from trainers.protocol.events import Judged, Measurement


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
        verdicts.append(VariantVerdict(m.variant, m, drop, passed, _reason(objective, drop, max_drop)))
    return verdicts + failed(failures)


def failed(failures: Mapping[str, str]) -> list[VariantVerdict]:
    """The verdicts on variants that could not be exported or run."""
    return [VariantVerdict(name, None, None, False, why) for name, why in failures.items()]


def verdict_of(judged: Judged, count: int, objective: Objective, max_drop: float) -> VariantVerdict:
    """The verdict on a variant that was measured on as many of `count` rows as it needed."""
    m, reason = judged.measurement, _reason(objective, judged.drop, max_drop)
    if m.rows is None:
        return VariantVerdict(m.variant, m, judged.drop, judged.passed, reason)
    rows = f"measured on {m.rows} of {count} rows"
    if judged.slower_than is not None:
        reason = f"slower than {judged.slower_than}, which passed ({reason}; {rows})"
    else:
        low, high = (_change(objective, bound) for bound in (judged.low, judged.high) if bound is not None)
        reason = f"{reason} ({min(low, high):+.2%} to {max(low, high):+.2%}; {rows})"
    return VariantVerdict(m.variant, m, judged.drop, judged.passed, reason, count, judged.slower_than)


def _reason(objective: Objective, drop: float, max_drop: float) -> str:
    change, allowed = _change(objective, drop), _change(objective, max_drop)
    return f"{objective.metric} {change:+.2%} against torch, allowed {allowed:+.2%}"


def _change(objective: Objective, drop: float) -> float:
    """The change of the metric itself, as a share."""
    return round(-drop if objective.direction == "maximize" else drop, 4) + 0.0  # -0.0 becomes 0.0


def choose(verdicts: Sequence[VariantVerdict]) -> VariantVerdict | None:
    """The fastest variant (by median latency) that passed, or None."""
    passed = [v for v in verdicts if v.passed and v.measurement]
    return min(passed, key=lambda v: v.measurement.latency_p50_ms if v.measurement else 0.0, default=None)


def useless(objective: Objective, value: float, constant: float) -> bool:
    """Whether a champion with `value` is no better than a model that always gives one answer and has `constant`.

    False where `constant` is NaN: it is unknown then.
    """
    return not math.isnan(constant) and not objective.better(value, constant)
