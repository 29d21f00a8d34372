"""Measures all variants of a champion in turns, each on as many validation rows as its verdict needs.

speed      ten turns of a few calls each
look 1     fp32 ─► int8 ─► int4     on the first rows of a fixed random order, the same for all
look 2     fp32          ─► int4    on twice the rows: int8 has its verdict
...                                 the last look has all rows: there the metric itself decides
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainers.export.candidate import Candidate, Exam, leave_behind
from trainers.export.measure import Variant, measure_speed
from trainers.metrics.enough_rows import PairedDrop, looks
from trainers.metrics.table import ROW_RESULTS
from trainers.protocol.measured import AllJudged
from trainers.protocol.requests import Gate


@dataclass(frozen=True)
class Torch:
    """The files with torch's numbers: per-row results of all rows, and logits of the first ones where they are kept."""

    results: Path
    logits: Path | None = None


def judge_in_turns(folders: Mapping[str, Path], rows: Path, torch: Torch, gate: Gate, threads: int) -> AllJudged:
    """Judge the variants in `folders` by name; one that fails is among `failures`, and does not stop the others."""
    began = time.monotonic()
    failures: dict[str, str] = {}
    variants: dict[str, Variant] = {}
    for name, folder in folders.items():
        try:
            variants[name] = Variant.load(folder, rows, threads)
        except Exception as error:  # noqa: BLE001  # a damaged graph raises what onnxruntime likes
            failures[name] = _reason(error)
    if not variants:
        return AllJudged([], failures, 0, time.monotonic() - began)
    measure_speed(list(variants.values()))
    exam = _exam(next(iter(variants.values())), torch, gate)
    candidates = {name: Candidate(variant, exam) for name, variant in variants.items()}
    _look_until_judged(candidates, failures)
    judged = []
    for name, candidate in candidates.items():
        if name not in failures:
            try:
                judged.append(candidate.judged())
            except Exception as error:  # noqa: BLE001  # as above
                failures[name] = _reason(error)
    return AllJudged(judged, failures, len(exam.order), time.monotonic() - began)


def _exam(variant: Variant, torch: Torch, gate: Gate) -> Exam:
    task, labels = variant.card.task, variant.card.labels
    width = ROW_RESULTS[task].width(labels)  # beyond it are generated answers and own metrics
    test = PairedDrop(task, labels, gate, np.load(torch.results, allow_pickle=False)[:, :width])
    return Exam(test, None if torch.logits is None else np.load(torch.logits, allow_pickle=False))


def _look_until_judged(candidates: Mapping[str, Candidate], failures: dict[str, str]) -> None:
    order = next(iter(candidates.values())).exam.order
    for size in looks(len(order)):
        under_way = {name: candidate for name, candidate in candidates.items() if name not in failures}
        for name, candidate in under_way.items():
            if not candidate.is_judged:
                try:
                    candidate.look(size)
                except Exception as error:  # noqa: BLE001  # a graph may fail on a row
                    failures[name] = _reason(error)
        leave_behind({name: candidate for name, candidate in under_way.items() if name not in failures})


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
