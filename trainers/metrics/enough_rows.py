"""When a few rows tell what all of them would: a sequential, paired test of how much worse one model is than another.

The reference (torch) has answered all N rows, the other model n of them: a simple random sample without replacement
that grows and is looked at several times. A row's effect is what the metric of all rows would lose if that row alone
were answered by the other model; the mean effect is the drop on all rows, but for what effects do together
(`_together`). The bound around it has the shape of the empirical Bernstein-Serfling inequality (Bardenet and Maillard,
Concentration inequalities for sampling without replacement, Bernoulli 21(3), 2015), with Student's quantile in place of
its constants, which are made for the worst case and would need all rows:

    mean ± ( t * deviation * sqrt((1 - n/N) / n)  +  harm * share + together )

`share` is the largest share of rows of a kind that n rows may all have missed, `harm` the effect of the worst row that
is known or thought of: without this term 64 equal answers would prove anything. Every look spends an equal part of
`LEVEL` (Bonferroni). The last look has all rows, and is no estimate. So the level is no theorem;
`tests/trainers/metrics/test_enough_rows.py` counts the wrong verdicts on simulated models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from trainers.metrics.table import ROW_RESULTS, Rows
from trainers.protocol.catalog import relative_drop
from trainers.protocol.requests import Gate

LEVEL = 0.01
"""The chance, of each model, of a verdict that all rows would not have given."""
FIRST_LOOK = 32
"""Rows; every later look has twice the rows of the one before, the last one all."""
UNSEEN = 10
"""What a row of a kind not seen yet may cost, in times of what rows may cost on average: the allowed drop."""
_SPREAD_ROWS = 1000
"""Rows that show how much rows differ: each takes the metric of all rows."""

Effects = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Drop:
    """How much worse the metric is, as a share of the reference's, and between which bounds it would be on all rows."""

    value: float
    low: float
    high: float

    def within(self, most: float) -> bool | None:
        """Whether it is at most `most`; None where the rows do not tell. A drop that is no number never is."""
        if math.isnan(self.value) or self.low > most:
            return False
        return True if self.high <= most else None


def looks(count: int) -> list[int]:
    """After how many of `count` rows to look; a step that would leave few rows to a later one takes them all."""
    sizes = []
    size = FIRST_LOOK
    while size <= 0.75 * count:
        sizes.append(size)
        size *= 2
    return [*sizes, count]


def sample_order(count: int) -> npt.NDArray[np.int64]:
    """All rows in a fixed random order: its beginnings are the nested samples."""
    return np.random.default_rng(0).permutation(count)


@dataclass(frozen=True)
class PairedDrop:
    """The test for one task, gate and reference with its results of all rows, [rows, columns]."""

    task: str
    labels: Sequence[str]
    gate: Gate
    reference: Rows

    def at(self, rows: npt.NDArray[np.int64], results: Rows) -> Drop:
        """The drop from the other model's results of the sampled `rows`, [sampled, columns]."""
        count = len(self.reference)
        if len(rows) == count:
            changed = np.empty_like(results)
            changed[rows] = results
            drop = self._drop(changed)
            return Drop(drop, drop, drop)
        effects = np.array([self._effect(row, result) for row, result in zip(rows, results, strict=True)])
        if not np.isfinite(effects).all():
            # A result that is no number: so is the metric of all rows. Else the reference's metric is 0.
            return (
                Drop(math.nan, math.nan, math.nan) if not np.isfinite(results).all() else Drop(0, -math.inf, math.inf)
            )
        mean = float(effects.mean())
        margin = self._margin(effects) + abs(self._together(rows, results) - mean) * count / len(rows)
        return Drop(mean, mean - margin, mean + margin)

    def on_more_rows(self, results: Rows) -> Drop:
        """The drop from results of all rows, [rows, columns] in their order, with bounds (95 %) of what it would be on
        many more rows like these."""
        drop, count = self._drop(results), len(self.reference)
        if count < 2:
            return Drop(drop, drop, drop)
        some = sample_order(count)[:_SPREAD_ROWS]
        spread = float(np.std([self._effect(row, results[row]) for row in some], ddof=1))
        margin = float(stdtrit(count - 1, 0.975)) * spread / math.sqrt(count)
        return Drop(drop, drop - margin, drop + margin) if math.isfinite(margin) else Drop(drop, drop, drop)

    def _margin(self, effects: Effects) -> float:
        measured, count = len(effects), len(self.reference)
        level = LEVEL / max(1, len(looks(count)) - 1)
        spread = float(effects.std(ddof=1)) * math.sqrt((1 - measured / count) / measured)
        # Of K rows of a kind, n drawn ones miss all with a chance of at most (1 - n/N)^K.
        missed = math.log(level) / math.log1p(-measured / count) / count
        harm = max(UNSEEN * self.gate.max_drop, self._harm, float(np.abs(effects - effects.mean()).max()))
        return float(stdtrit(measured - 1, 1 - level)) * spread + harm * missed

    def _together(self, rows: npt.NDArray[np.int64], results: Rows) -> float:
        """The mean effect when all sampled rows are changed at once, which differs as far as the metric is curved."""
        changed = self.reference.copy()
        changed[rows] = results
        return self._drop(changed) * len(self.reference) / len(rows)

    def _effect(self, row: int, result: Rows) -> float:
        changed = self.reference.copy()
        changed[row] = result
        return self._drop(changed) * len(self.reference)

    def _drop(self, rows: Rows) -> float:
        return relative_drop(self._metric(rows), self._reference_metric, self.gate.direction)

    def _metric(self, rows: Rows) -> float:
        return ROW_RESULTS[self.task].metrics(rows, self.labels)[self.gate.metric]

    @cached_property
    def _reference_metric(self) -> float:
        return self._metric(self.reference)

    @cached_property
    def _harm(self) -> float:
        """The largest effect of a row that the reference answers rightly and the other model wrongly; 0 where a row's
        answer is no decision, and what rows have shown must do."""
        wrong = _WRONG.get(self.task)
        if wrong is None:
            return 0.0
        losses = ROW_RESULTS[self.task].losses(self.reference)
        easiest = {self._kind(row): row for row in np.argsort(-losses, kind="stable").tolist()}
        return max(abs(self._effect(row, wrong(self.reference[row], len(self.labels)))) for row in easiest.values())

    def _kind(self, row: int) -> float:
        """Rows of one label have one effect; other tasks have no such label, and the easiest row stands for all."""
        return float(self.reference[row, 0]) if "label" in ROW_RESULTS[self.task].label_columns else 0.0


def _wrong_label(row: Rows, labels: int) -> Rows:
    other = (int(row[0]) + 1) % labels
    return np.concatenate([[row[0], other, row[2]], np.arange(labels) == other])


def _wrong_labels(row: Rows, labels: int) -> Rows:
    return np.concatenate([row[: 1 + labels], 1 - row[1 : 1 + labels]])


def _wrong_tags(row: Rows, labels: int) -> Rows:
    changed = row.copy()
    changed[[2, 3]] = 0  # hits and correct entities
    changed[6 : 6 + labels] = 0  # hits of each tag
    return changed


_WRONG: Mapping[str, Callable[[Rows, int], Rows]] = {
    "text-classification": _wrong_label,
    "multi-label-classification": _wrong_labels,
    "token-classification": _wrong_tags,
}
"""Results of a row as if every decision in it were wrong, by task."""
