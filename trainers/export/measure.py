"""Measures released variants in onnxruntime: size, speed, difference from torch, and the task's metrics.

Run it in a separate process, in which nothing else runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainers.export.answers import Answers, answers_of
from trainers.export.nearness import agreement_of_logits, max_logit_diff
from trainers.metrics.table import ROW_RESULTS
from trainers.protocol.measured import Measurement
from trainers.runtime.bundle import Bundle
from trainers.runtime.card import CLASSIFYING, Card
from trainers.runtime.load import load

TURNS = 10
"""Of each variant while latency is measured; the others stand still meanwhile."""
LATENCY_CALLS = 30
_WARM_UP_CALLS = 5


def measure(
    folder: Path,
    rows: Path,
    reference: Path | None = None,
    *,
    threads: int | None = None,
    latency_calls: int = LATENCY_CALLS,
    labels: Sequence[str] | None = None,
    rows_file: Path | None = None,
) -> dict[str, float]:
    """Measure the release in `folder` on `rows`, a JSONL file as the tasks' `measure_row` writes it.

    `reference` is a .npy file with torch's logits: [texts, labels] of the first rows, or [tokens, vocabulary or tags]
    of the first rows' tokens one after the other, which may end within a row. `labels` are the label names of the rows
    where they come from another sweep; labels are then matched by name. Per-row results are written to `rows_file`.

    Returns `size_mb`, `load_seconds`, the task's metrics, and for one text `latency_p50_ms` and `latency_p95_ms`; for a
    generative model the latency is that of the first row's prefill, and there is `tokens_per_second`. With a reference
    there is `max_logit_diff`; for regression it is divided by the largest value where that is above 1. There are
    `equal_answers` of `compared_answers` too, unless answers are numbers. Raises `ReleaseError` for a folder that
    cannot be loaded, and `ValueError` for a release that cannot answer.
    """
    variant = Variant.load(folder, rows, threads, labels)
    measure_speed([variant], latency_calls)
    numbers = {"size_mb": variant.size_mb, "load_seconds": variant.load_seconds, **variant.latency()}
    if (speed := variant.answers.tokens_per_second()) is not None:
        numbers["tokens_per_second"] = speed
    if reference is not None:
        expected = np.load(reference, allow_pickle=False)
        ours = variant.answers.first_logits(expected)
        numbers["max_logit_diff"] = max_logit_diff(ours, expected, variant.card.task)
        if same := agreement_of_logits(ours, expected, variant.card.task):
            numbers |= {"equal_answers": same.equal, "compared_answers": same.count}
    results = variant.answers.results(range(variant.rows))
    if rows_file is not None:
        from trainers.training.evaluation import save_rows  # late: it imports torch, which measuring does without

        save_rows(results, rows_file)
    return numbers | ROW_RESULTS[variant.card.task].metrics(results, variant.card.labels)


@dataclass
class Variant:
    """A loaded release with its rows, and the time that its answers took."""

    card: Card
    answers: Answers
    rows: int
    size_mb: float
    load_seconds: float
    milliseconds: list[list[float]] = field(default_factory=list)
    """Of the timed calls, turn by turn."""

    @classmethod
    def load(
        cls, folder: Path, rows: Path, threads: int | None, labels: Sequence[str] | None = None,
        tuned: Mapping[str, Any] | None = None,
    ) -> Variant:  # fmt: skip
        """`tuned` are session options in place of the card's. Of a bundle its champion is measured.

        Raises `ReleaseError` for a folder that cannot be loaded, and `ValueError` for one that cannot answer.
        """
        began = time.perf_counter()
        release = load(folder, threads, tuned)
        if isinstance(release, Bundle):
            release = release.champion or release
        seconds = time.perf_counter() - began
        release.predict([release.card.example], max_new_tokens=1)
        with rows.open(encoding="utf-8") as lines:  # `splitlines` would also split at U+2028 and similar
            examples = [json.loads(line) for line in lines]
        if labels is not None:
            examples = _by_name(examples, labels, release.card)
        size_mb = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
        return cls(release.card, answers_of(release, examples), len(examples), size_mb, seconds)

    def take_turn(self, start: int, calls: int) -> None:
        """Time `calls` answers, after one that brings the model back into the caches."""
        self.answers.call(start)
        times = []
        for number in range(start, start + calls):
            began = time.perf_counter()
            self.answers.call(number)
            times.append((time.perf_counter() - began) * 1e3)
        self.milliseconds.append(times)

    def latency(self) -> dict[str, float]:
        """`latency_p50_ms` and `latency_p95_ms`."""
        p50, p95 = np.percentile(np.concatenate(self.milliseconds), [50, 95])
        return {"latency_p50_ms": float(p50), "latency_p95_ms": float(p95)}

    def surely_slower_than(self, other: Variant) -> bool:
        """Whether it was slower in every turn: by chance alone, of ten turns, once in 1,024 (sign test)."""
        pairs = zip(self.milliseconds, other.milliseconds, strict=True)
        return len(self.milliseconds) >= TURNS and all(np.median(mine) > np.median(its) for mine, its in pairs)

    def measurement(self, metrics: dict[str, float], difference: float, speed: float | None) -> Measurement:
        """What was measured, as an event; `difference` is the largest of logits, `speed` in tokens a second."""
        p50, p95 = self.latency().values()
        return Measurement(self.card.variant, metrics, difference, self.size_mb, p50, p95, speed)


def measure_speed(variants: Sequence[Variant], calls: int = LATENCY_CALLS) -> None:
    """Time `calls` answers of each variant in turns, so that a slow minute of the machine is everybody's."""
    for variant in variants:
        for number in range(_WARM_UP_CALLS):
            variant.answers.call(number)
    turns = min(TURNS, calls)
    for turn in range(turns):
        first, last = (calls * edge // turns for edge in (turn, turn + 1))
        for variant in variants:
            variant.take_turn(first, last - first)


def _by_name(rows: Sequence[Any], labels: Sequence[str], card: Card) -> list[Any]:
    """Rows of another sweep with the label numbers of this release.

    Raises `ValueError` where it cannot classify them.
    """
    if unknown := [label for label in labels if label not in card.labels]:
        raise ValueError(f"it has no label {unknown[0]!r}")
    if card.task in CLASSIFYING and ("text_pair" in card.columns) != ("text_pair" in rows[0]):
        raise ValueError(f"it classifies {' with '.join(card.columns)}, but these rows have other columns")
    places = [card.labels.index(label) for label in labels]
    renamed = []
    for row in rows:
        if "label" in row:
            renamed.append({**row, "label": places[row["label"]]})
        elif "labels" in row:
            given = dict(zip(places, row["labels"], strict=True))
            renamed.append({**row, "labels": [given.get(place, 0) for place in range(len(card.labels))]})
        else:
            renamed.append(row)
    return renamed
