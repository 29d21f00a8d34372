"""What a report is made of, gathered before anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.config.space import SearchSpace, from_resolved
from hpo.results.importance import Importance, importances
from hpo.results.records import StudySnapshot
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


def facts_of(study: StudySnapshot, summary: SweepSummary) -> ReportFacts:
    """The facts of a sweep; the champion's worst rows and confusion are read from its files, where it has them."""
    files, space = summary.champion_files, from_resolved(study.config["search_space"])
    rows = [json.loads(line) for line in (_text(files, "worst_examples.jsonl") or "").splitlines()]
    found = importances(study.records, space, summary.objective)
    return ReportFacts(summary, study.config, space, found, rows, _text(files, "confusion_matrix.svg"))


def _text(files: Mapping[str, str], name: str) -> str | None:
    return Path(files[name]).read_text(encoding="utf-8") if name in files else None
