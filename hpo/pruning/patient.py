"""Patient: another rule, applied only to trials that no longer improve."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpo.pruning.base import ComparingRule, Curve, Noise, Peers, Rule
from hpo.pruning.percentile import Median


@dataclass(frozen=True)
class Patient(ComparingRule):
    """Applies another rule, but only to trials that no longer improve.

    A trial stops when `rule` stops it at this evaluation *and* none of its last `patience` values is better by more
    than `min_delta` than the best value before them. This is the "patience" of early stopping (Prechelt 1998, "Early
    stopping - but when?"), as in Optuna's PatientPruner. So no trial stops in its first `patience` evaluations, unless
    its value is NaN. While a trial improves, what `rule` says is ignored and not remembered.

    Running peers count as they do for `rule`.
    """

    rule: Rule = Median()  # noqa: RUF009  # frozen, so one for all
    patience: int = 2
    min_delta: float = 0.0

    def _loses(self, peers: Peers, number: int, curve: Curve) -> bool:
        keys = [peers.order.sort_key(value) for _, value in curve]
        split = len(keys) - self.patience
        improved = split <= 0 or min(keys[:split]) - min(keys[split:], default=math.inf) > self.min_delta
        return not improved and self.rule.should_prune(peers, number)

    @property
    def noise(self) -> Noise | None:
        return self.rule.noise
