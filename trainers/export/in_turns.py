"""Measures all variants of a champion in turns, each on as many validation rows as its verdict needs.

speed      ten turns of a few calls each
look 1     fp32 ─► int8 ─► int4     on the first rows of a fixed random order, the same for all
look 2     fp32          ─► int4    on twice the rows: int8 has its verdict
...                                 the last look has all rows: there the metric itself decides
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainers.export.measure import Variant, measure_speed
from trainers.metrics.enough_rows import Drop, PairedDrop, looks, sample_order
from trainers.metrics.table import ROW_RESULTS, Rows
from trainers.protocol.events import AllJudged, Judged
from trainers.protocol.requests import Gate


@dataclass
class _Candidate:
    """A variant under way to its verdict."""

    variant: Variant
    results: list[Rows] = field(default_factory=list)
    rows: int = 0
    drop: Drop | None = None
    passed: bool | None = None
    slower_than: str | None = None

    @property
    def is_judged(self) -> bool:
        return self.passed is not None

    def judged(self, reference: npt.NDArray[np.float32] | None) -> Judged:
        """The verdict with all numbers."""
        assert self.drop is not None and self.passed is not None  # noqa: S101, PT018  # after the last look
        card, answers = self.variant.card, self.variant.answers
        metrics = ROW_RESULTS[card.task].metrics(np.concatenate(self.results), card.labels)
        difference = float("nan") if reference is None else answers.max_logit_diff(reference)
        measurement = self.variant.measurement(metrics, difference, answers.tokens_per_second())
        if self.rows == self.variant.rows:
            return Judged(measurement, self.drop.value, self.passed)
        return Judged(
            replace(measurement, rows=self.rows), self.drop.value, self.passed, self.drop.low, self.drop.high,
            self.slower_than,
        )  # fmt: skip


@dataclass(frozen=True)
class Torch:
    """The files with torch's numbers: per-row results of all rows, and logits of the first ones where they are kept."""

    results: Path
    logits: Path | None = None


def judge_in_turns(folders: Mapping[str, Path], rows: Path, torch: Torch, gate: Gate, threads: int) -> AllJudged:
    """Judge the variants in `folders` by name; one that fails is among `failures`, and does not stop the others."""
    began = time.monotonic()
    failures: dict[str, str] = {}
    candidates: dict[str, _Candidate] = {}
    for name, folder in folders.items():
        try:
            candidates[name] = _Candidate(Variant.load(folder, rows, threads))
        except Exception as error:  # noqa: BLE001  # a damaged graph raises what onnxruntime likes
            failures[name] = _reason(error)
    measure_speed([candidate.variant for candidate in candidates.values()])
    count = 0
    if candidates:
        test = _paired_drop(next(iter(candidates.values())).variant, torch.results, gate)
        count = len(test.reference)
        _look_until_judged(candidates, test, failures)
    logits = None if torch.logits is None else np.load(torch.logits, allow_pickle=False)
    judged = []
    for name, candidate in candidates.items():
        if name not in failures:
            try:
                judged.append(candidate.judged(logits))
            except Exception as error:  # noqa: BLE001  # as above
                failures[name] = _reason(error)
    return AllJudged(judged, failures, count, time.monotonic() - began)


def _paired_drop(variant: Variant, results: Path, gate: Gate) -> PairedDrop:
    task, labels = variant.card.task, variant.card.labels
    width = ROW_RESULTS[task].width(labels)  # beyond it are generated answers and own metrics
    return PairedDrop(task, labels, gate, np.load(results, allow_pickle=False)[:, :width])


def _look_until_judged(candidates: Mapping[str, _Candidate], test: PairedDrop, failures: dict[str, str]) -> None:
    order = sample_order(len(test.reference))
    for size in looks(len(order)):
        for name, candidate in candidates.items():
            if candidate.is_judged or name in failures:
                continue
            try:
                candidate.results.append(candidate.variant.answers.results(order[candidate.rows : size].tolist()))
            except Exception as error:  # noqa: BLE001  # a graph may fail on a row
                failures[name] = _reason(error)
                continue
            candidate.rows = size
            candidate.drop = test.at(order[:size], np.concatenate(candidate.results))
            candidate.passed = candidate.drop.within(test.gate.max_drop)
        _leave_slower_ones(candidates)


def _leave_slower_ones(candidates: Mapping[str, _Candidate]) -> None:
    """The fastest that passed is released: what is surely slower needs no verdict of its own."""
    passed = {name: candidate for name, candidate in candidates.items() if candidate.passed}
    for candidate in candidates.values():
        if candidate.is_judged or candidate.drop is None:
            continue
        for name, other in passed.items():
            if candidate.variant.surely_slower_than(other.variant):
                candidate.passed, candidate.slower_than = False, name
                break


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
