"""What a report is made of, gathered before anything is written. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.config.space import SearchSpace
from hpo.results.importance import Importance
from hpo.results.summary import SweepSummary


@dataclass(frozen=True)
class ReportFacts:
    """A sweep as every format of the report shows it."""

    summary: SweepSummary
    config: Mapping[str, Any]
    """The whole file as plain values, with defaults."""
    space: SearchSpace
    importances: Sequence[Importance]
    """Empty where there are too few trials to tell."""
    worst_rows: Sequence[Mapping[str, Any]]
    """The champion's, worst first; empty where they were not written."""
    confusion_svg: str | None
    """Where the task has one label a row."""
