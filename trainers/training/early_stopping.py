"""Early stopping: a trial's own curve has stopped improving. (Comparing with other trials is pruning.)"""

from __future__ import annotations

import math
from typing import Literal


class EarlyStopping:
    """Remembers the best value, and how many evaluations ago one improved by more than `min_delta`."""

    def __init__(self, direction: Literal["maximize", "minimize"], patience: int, min_delta: float = 0.0) -> None:
        self._sign = 1.0 if direction == "maximize" else -1.0
        self._patience = patience
        self._min_delta = min_delta
        self._to_beat = math.nan
        self._since = 0
        self.best = math.nan

    def is_best(self, value: float) -> bool:
        """Take the next value; whether it is the best so far. NaN never is."""
        if self._improves(value, self._to_beat, self._min_delta):
            self._to_beat = value
            self._since = 0
        else:
            self._since += 1
        if self._improves(value, self.best, 0.0):
            self.best = value
            return True
        return False

    def _improves(self, value: float, reference: float, by: float) -> bool:
        return not math.isnan(value) and (math.isnan(reference) or self._sign * (value - reference) > by)

    @property
    def should_stop(self) -> bool:
        """Whether the last evaluations brought no improvement, `patience` of them in a row."""
        return self._since >= self._patience
