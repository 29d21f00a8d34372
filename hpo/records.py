"""A study as read back: frozen records, past which no Optuna type travels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hpo.objective import Objective
from trainers.catalog import Setting
from trainers.spec import TrialResult


@dataclass(frozen=True)
class TrialRecord:
    """One trial as the study remembers it."""

    number: int
    state: str
    """complete, pruned, failed or running."""
    params: dict[str, Setting]
    curve: list[tuple[float, float]]
    """(share of the budget, value) per evaluation."""
    run_id: str | None
    result: TrialResult | None


@dataclass(frozen=True)
class StudyView:
    """A whole study: what a sweep was asked to do, and what happened."""

    name: str
    config: dict[str, Any]
    objective: Objective
    records: list[TrialRecord]
    attrs: dict[str, Any]
