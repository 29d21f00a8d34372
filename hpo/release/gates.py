"""Gates on measured numbers: whether the champion, and which of its ONNX variants, may be released. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpo.config.objective import Objective
from hpo.config.promotion import Promote
from hpo.results.released import VariantVerdict
from trainers.protocol.measured import Agreement, Judged, Measurement
from trainers.protocol.requests import Prefer


@dataclass(frozen=True)
class Limits:
    """What a variant must keep and may cost besides its metric; None for what the YAML does not limit."""

    min_agreement: float | None = None
    max_latency_ms: float | None = None
    max_size_mb: float | None = None

    @classmethod
    def of(cls, promote: Promote) -> Limits:
        """Those of the YAML."""
        return cls(promote.min_agreement, promote.max_latency_ms, promote.max_size_mb)

    def exceeded(self, found: Measurement) -> dict[str, str]:
        """The gates that a variant fails, each with its number."""
        failed = {}
        if self.min_agreement is not None and not _agrees(found.agreement, self.min_agreement):
            failed["min_agreement"] = f"{_agreement(found.agreement)}, at least {self.min_agreement:.2%} is allowed"
        if self.max_latency_ms is not None and not found.latency_p50_ms <= self.max_latency_ms:
            failed["max_latency_ms"] = f"p50 {found.latency_p50_ms:.2f} ms, allowed {self.max_latency_ms:g} ms"
        if self.max_size_mb is not None and not found.size_mb <= self.max_size_mb:
            failed["max_size_mb"] = f"size {found.size_mb:.1f} MB, allowed {self.max_size_mb:g} MB"
        return failed


NO_LIMITS = Limits()


def apply_gate(
    torch_metrics: Mapping[str, float],
    measurements: Sequence[Measurement],
    failures: Mapping[str, str],
    objective: Objective,
    max_drop: float,
    limits: Limits = NO_LIMITS,
) -> list[VariantVerdict]:
    """The verdict on every variant: it passes when its metric is at most `max_drop` (a share) worse than torch's, and
    it is within the limits.

    `failures` maps variants that could not be exported or run to the reason.
    """
    reference = torch_metrics[objective.metric]
    verdicts = []
    for m in measurements:
        drop = objective.relative_drop(m.metrics[objective.metric], reference)
        verdicts.append(_verdict(Judged(m, drop, passed=drop <= max_drop), _reason(objective, drop, max_drop), limits))
    return verdicts + failed(failures)


def failed(failures: Mapping[str, str]) -> list[VariantVerdict]:
    """The verdicts on variants that could not be exported or run."""
    return [VariantVerdict(name, None, None, False, why) for name, why in failures.items()]


def verdict_of(
    judged: Judged, count: int, objective: Objective, max_drop: float, limits: Limits = NO_LIMITS,
    prefer: Prefer = "latency",
) -> VariantVerdict:  # fmt: skip
    """The verdict on a variant that was measured on as many of `count` rows as it needed."""
    m, reason = judged.measurement, _reason(objective, judged.drop, max_drop)
    on_rows = "" if m.rows is None else f"measured on {m.rows} of {count} rows"
    if judged.slower_than is not None:
        behind = "larger" if prefer == "size" else "slower"
        reason = f"{behind} than {judged.slower_than}, which passed ({reason}{'; ' * bool(on_rows)}{on_rows})"
        counted = None if m.rows is None else count
        return VariantVerdict(m.variant, m, judged.drop, False, reason, counted, judged.slower_than)
    if judged.low is None or judged.high is None:
        return _verdict(judged, reason, limits)
    low, high = sorted(_change(objective, bound) for bound in (judged.low, judged.high))
    is_open = judged.low <= max_drop < judged.high
    more = f"the {count} rows do not tell: {rows_needed(judged, count, max_drop)} would" if is_open else on_rows
    more = on_rows or more  # on a part of the rows it is open only where size or time have ruled it out
    reason = f"{reason} ({low:+.2%} to {high:+.2%}{'; ' * bool(more)}{more})"
    return _verdict(judged, reason, limits, None if m.rows is None else count, is_open=is_open)


def _verdict(
    judged: Judged, reason: str, limits: Limits, count: int | None = None, *, is_open: bool = False
) -> VariantVerdict:
    """`reason` is that of the metric; `is_open` where the rows do not tell whether it is within `max_drop`."""
    m = judged.measurement
    exceeded = limits.exceeded(m)
    is_ruled_out = bool(exceeded) and is_open
    gates = [*exceeded, *([] if judged.passed or is_ruled_out else ["max_drop"])]
    why = "; ".join([*exceeded.values(), reason])
    return VariantVerdict(
        m.variant, m, judged.drop, not gates, why, count, is_close=is_open and not exceeded, failed_gates=tuple(gates)
    )


def rows_needed(judged: Judged, count: int, max_drop: float) -> str:
    """About how many rows would tell a drop from the allowed one: the interval shrinks with their square root."""
    assert judged.low is not None and judged.high is not None  # noqa: S101, PT018  # the caller has both
    distance = abs(max_drop - judged.drop)
    width = (judged.high - judged.low) / 2
    if distance <= width / 100:
        return "more than 10,000 times as many"
    needed = count * (width / distance) ** 2
    size = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    return f"about {math.ceil(round(needed / size, 6)) * size:,}"


def _agrees(found: Agreement | None, least: float) -> bool:
    return found is not None and found.share >= least


def _agreement(found: Agreement | None) -> str:
    """The share with its interval."""
    if found is None:
        return "agreement with torch is not known"
    low, high = found.interval
    return f"{found.equal} of {found.count} answers are torch's, {found.share:.2%} ({low:.2%} to {high:.2%})"


def _reason(objective: Objective, drop: float, max_drop: float) -> str:
    change, allowed = _change(objective, drop), _change(objective, max_drop)
    return f"{objective.metric} {change:+.2%} against torch, allowed {allowed:+.2%}"


def _change(objective: Objective, drop: float) -> float:
    """The change of the metric itself, as a share."""
    return round(-drop if objective.direction == "maximize" else drop, 4) + 0.0  # -0.0 becomes 0.0


def choose(verdicts: Sequence[VariantVerdict], prefer: Prefer = "latency") -> VariantVerdict | None:
    """Of the variants that passed the fastest (by median latency), the smallest, or the one nearest to torch's logits;
    None where none passed."""
    passed = [v for v in verdicts if v.passed and v.measurement]
    return min(passed, key=lambda v: _cost(v.measurement, prefer), default=None)


def _cost(found: Measurement | None, prefer: Prefer) -> float:
    """What the wanted variant has least of; infinite where it is not known."""
    if found is None:
        return math.inf
    cost = {"latency": found.latency_p50_ms, "size": found.size_mb, "quality": found.max_logit_diff}[prefer]
    return math.inf if math.isnan(cost) else cost


def useless(objective: Objective, value: float, constant: float) -> bool:
    """Whether a champion with `value` is no better than a model that always gives one answer and has `constant`.

    False where `constant` is NaN: it is unknown then.
    """
    return not math.isnan(constant) and not objective.better(value, constant)
