"""What a report is made of, gathered before anything is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpo.config.space import SearchSpace, from_resolved
from hpo.report.champion_files import read_champion_files
from hpo.results.importance import Importance, importances
from hpo.results.records import StudySnapshot
from hpo.results.row_findings import RowFindings
from hpo.results.summary import SweepSummary


@dataclass(frozen=True)
class Origin:
    """The champion's training: what trains it again, and what its numbers depend on."""

    run: str
    """As `hpo reproduce` takes it."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Seed, threads, machine and packages by their names; empty where an earlier hpo did not record them."""


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
    rows: RowFindings | None = None
    """None before the sweep has ended, and where the rows are not kept."""
    origin: Origin | None = None
    """None without a champion."""
    as_of: str | None = None
    """Of a sweep that runs: the local time at which this was read."""

    def to_json(self) -> dict[str, Any]:
        """For `json_text`: what `hpo show --json` has, and what only the report has."""
        return {
            **self.summary.for_json_text(),
            "importances": [dataclasses.asdict(i) for i in self.importances],
            "config": self.config,
            "rows": self.rows and dataclasses.asdict(self.rows),
            "origin": self.origin and dataclasses.asdict(self.origin),
        }


def facts_of(
    study: StudySnapshot, summary: SweepSummary, rows: RowFindings | None = None, origin: Origin | None = None,
    as_of: str | None = None,
) -> ReportFacts:  # fmt: skip
    """The facts of a sweep; the champion's worst rows and confusion are read from its files, where it has them."""
    space, files = from_resolved(study.config["search_space"]), read_champion_files(summary.champion_files)
    found = importances(study.records, space, summary.objective)
    summary = dataclasses.replace(summary, unread=[*summary.unread, *files.unread])
    shown = (summary, study.config, space, found, files.worst_rows, files.confusion_svg)
    return ReportFacts(*shown, rows, origin, as_of)
