"""A variant under way to its verdict: what it answered so far, how near it is to torch, and whether that is enough."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from trainers.export.measure import Variant
from trainers.export.nearness import agreement_of_logits, agreement_of_rows, max_logit_diff
from trainers.metrics.enough_rows import Drop, PairedDrop, sample_order
from trainers.metrics.table import ROW_RESULTS, Rows
from trainers.protocol.measured import Agreement, Judged


@dataclass(frozen=True)
class Exam:
    """What every variant is asked, and what is compared: the test with torch's results, and torch's first logits."""

    test: PairedDrop
    logits: npt.NDArray[Any] | None

    @cached_property
    def order(self) -> npt.NDArray[np.int64]:
        """All rows in the order in which they are asked."""
        return sample_order(len(self.test.reference))


@dataclass
class Candidate:
    """A variant, and its answers to the first `rows` rows of the exam."""

    variant: Variant
    exam: Exam
    results: list[Rows] = field(default_factory=list)
    rows: int = 0
    drop: Drop | None = None
    passed: bool | None = None
    """Whether the metric is near enough to torch's; None where the rows do not tell yet."""
    behind: str | None = None
    """The variant that passed before and is preferred to this one."""

    @property
    def is_judged(self) -> bool:
        """Whether further rows would change nothing."""
        if self.behind is not None or (self.rows > 0 and self.costs_too_much):
            return True
        return self.passed is not None and not self._agreement_is_open

    def look(self, size: int) -> None:
        """Answer the rows up to `size`, and judge by all that are answered. Raises what a graph raises."""
        test, order = self.exam.test, self.exam.order
        self.results.append(self.variant.answers.results(order[self.rows : size].tolist()))
        self.rows = size
        self.drop = test.at(order[:size], self._answered)
        self.passed = self.drop.within(test.gate.max_drop)
        if size == len(order):
            in_order = np.empty_like(self._answered)
            in_order[order] = self._answered
            self.drop = test.on_more_rows(in_order)

    @cached_property
    def costs_too_much(self) -> bool:
        """Whether it is too large or too slow, so that no row could make it the release."""
        return self.exam.test.gate.costs_too_much(self.variant.size_mb, self._p50_ms)

    @property
    def may_be_released(self) -> bool:
        """Whether it passed every gate."""
        if not self.passed or self.costs_too_much or self._agreement_is_open:
            return False
        least = self.exam.test.gate.min_agreement
        return least is None or (self.agreement is not None and self.agreement.share >= least)

    def yields_to(self, other: Candidate) -> bool:
        """Whether another one that passed is surely preferred, whatever further rows show."""
        prefer = self.exam.test.gate.prefer
        if prefer == "latency":
            return self.variant.surely_slower_than(other.variant)
        return prefer == "size" and self.variant.size_mb > other.variant.size_mb

    @property
    def agreement(self) -> Agreement | None:
        """How many answers are torch's: of the rows answered, else of those whose logits of torch's there are."""
        return self._agreement_of_rows or self._nearness[1]

    @property
    def _agreement_of_rows(self) -> Agreement | None:
        card, torchs = self.variant.card, self.exam.test.reference[self.exam.order[: self.rows]]
        return agreement_of_rows(self._answered, torchs, card.task, len(card.labels))

    @property
    def _agreement_is_open(self) -> bool:
        """Whether the rows do not tell on which side of `min_agreement` a variant that else passed is, and more rows
        are left."""
        least = self.exam.test.gate.min_agreement
        if least is None or not self.passed or self.rows == len(self.exam.order):
            return False
        found = self._agreement_of_rows
        return found is not None and found.interval[0] <= least <= found.interval[1]

    def judged(self) -> Judged:
        """The verdict with all numbers. Raises what a graph raises."""
        assert self.drop is not None  # noqa: S101  # after the last look
        card = self.variant.card
        metrics = ROW_RESULTS[card.task].metrics(self._answered, card.labels)
        measurement = self.variant.measurement(metrics, self._nearness[0], self.variant.answers.tokens_per_second())
        rows = None if self.rows == self.variant.rows else self.rows
        measurement = replace(measurement, rows=rows, agreement=self.agreement)
        return Judged(
            measurement, self.drop.value, bool(self.passed), self.drop.low, self.drop.high, slower_than=self.behind
        )

    @property
    def _answered(self) -> Rows:
        return np.concatenate(self.results)

    @cached_property
    def _p50_ms(self) -> float:
        return self.variant.latency()["latency_p50_ms"]

    @cached_property
    def _nearness(self) -> tuple[float, Agreement | None]:
        """The largest difference of logits, and how many answers they agree on."""
        expected, task = self.exam.logits, self.variant.card.task
        if expected is None:
            return math.nan, None
        ours = self.variant.answers.first_logits(expected)
        return max_logit_diff(ours, expected, task), agreement_of_logits(ours, expected, task)


def leave_behind(candidates: Mapping[str, Candidate]) -> None:
    """What surely would not be preferred to one that passed needs no verdict of its own."""
    passed = {name: candidate for name, candidate in candidates.items() if candidate.may_be_released}
    for candidate in candidates.values():
        if candidate.is_judged or candidate.drop is None:
            continue
        candidate.behind = next((name for name, other in passed.items() if candidate.yields_to(other)), None)
