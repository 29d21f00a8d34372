"""Released artifacts that answer the same rows of a sweep's data, so that they can be compared row by row."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpo.errors import HpoError
from hpo.executors.base import Executor
from hpo.results.statistics import Units
from hpo.trials.calls import run_alone
from hpo.trials.row_units import units_of
from hpo.trials.slots import cores
from hpo.trials.trial_files import read_rows
from trainers.metrics.table import ROW_RESULTS, Rows
from trainers.protocol.events import PreparedData
from trainers.protocol.requests import Measure
from trainers.runtime.card import GENERATIVE, REWRITING, Card


@dataclass(frozen=True)
class Answered:
    """What a released artifact answered."""

    rows: Rows
    """Per-row results, [rows, columns]."""
    labels: Sequence[str]
    """The names of its own label numbers."""


@dataclass(frozen=True)
class SameRows:
    """The rows of a sweep's data, for artifacts that other sweeps may have released."""

    executor: Executor
    task: str
    prepared: PreparedData
    scratch: Path
    """A folder for per-row results; the caller removes it."""

    def check_comparable(self, folder: Path) -> Card:
        """The card of another release. Raises `HpoError` where its numbers on these rows would say nothing."""
        card = Card.read(folder)
        if card.adapters and not card.champion:
            raise HpoError("it is a bundle of several trainings")
        if card.task != self.task:
            raise HpoError(f"it is a model for {card.task}")
        if card.task in (*GENERATIVE, REWRITING) and _base_of(folder) != self.prepared.model_fingerprint:
            raise HpoError("it has another base model, so its tokens differ")
        return card

    def answered(
        self, folder: Path, role: str, split: Literal["validation", "test"] = "validation"
    ) -> Answered:  # fmt: skip
        """A release folder on all rows of a split; labels are matched by name.

        Raises `RequestFailed` for one that cannot answer them, `ReleaseError` for one that is damaged.
        """
        rows_file = self.scratch / f"{role}-{split}.npy"
        rows = str(Path(self.prepared.tokens_dir) / f"{split}.jsonl")
        request = Measure(folder.name, str(folder.parent), rows, cores(), self.prepared.labels, str(rows_file))
        run_alone(self.executor, request)
        return Answered(read_rows(rows_file, self.executor.fetch), Card.read(folder).labels)

    def units(self, split: Literal["validation", "test"] = "validation") -> Units | None:
        """Which rows of a split belong together; None where each is alone."""
        return units_of(self.task, self.prepared, split, self.executor.fetch)

    def metric(self, name: str, labels: Sequence[str]) -> Callable[[Rows], float]:
        """A metric of the task, of rows whose label numbers are those of `labels`."""
        return lambda rows: ROW_RESULTS[self.task].metrics(rows, labels)[name]


def _base_of(folder: Path) -> str | None:
    """The hash of a release's base model; None where its manifest is missing or damaged."""
    try:
        base: str = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["sha256"]["base"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return base
