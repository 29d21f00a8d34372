"""The tables and lines of a comparison, the same in every format that shows text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hpo.quoting import clipped
from hpo.report.comparison import Comparison, confirmed
from hpo.report.facts import ReportFacts
from hpo.report.parts import Table
from hpo.results.leaderboard import leaderboard
from hpo.results.rivals import in_words

TOP = 5
"""Trials of each sweep that are shown."""


def answers_part(comparison: Comparison) -> Table:
    """A row for each sweep: what won, how sure that is, what it cost."""
    columns = ["sweep", "state", "trials", "metric", "champion", "trial", "95 % interval", "over the baseline",
               "sealed test", "hours", "cost", "released"]  # fmt: skip
    return Table("What each found", columns, [_answer(facts) for facts in comparison.sweeps])


def _answer(facts: ReportFacts) -> list[str]:
    summary = facts.summary
    champion, interval = summary.champion, confirmed(facts)
    return [
        summary.sweep, summary.state, f"{len(summary.trials):,}", summary.objective.metric,
        f"{champion.value:.4f}" if champion else "-", str(champion.number) if champion else "-",
        f"{interval.low:.4f} to {interval.high:.4f}" if interval else "-", _over_the_baseline(facts),
        f"{summary.test.champion.interval.mean:.4f}" if summary.test else "-", f"{summary.spent.hours:.2f}",
        "-" if summary.spent.cost is None else f"{summary.spent.cost:.2f}",
        f"{summary.release.name} v{summary.release.version}" if summary.release else "-",
    ]  # fmt: skip


def _over_the_baseline(facts: ReportFacts) -> str:
    """As the finalists showed it, with its interval; without finalists the plain difference.

    A repeat is not compared with the search's own training of the baseline, nor the baseline with itself.
    """
    summary = facts.summary
    if summary.finalists:
        against = summary.finalists.against_baseline
        return f"{against.difference:+.4f} ({against.low:+.4f} to {against.high:+.4f})" if against else "-"
    if summary.champion is None or summary.baseline is None or summary.baseline.value is None:
        return "-"
    return f"{summary.champion.value - summary.baseline.value:+.4f}"


def leads_lines(comparison: Comparison) -> list[str]:
    """Each champion against the first sweep's, on the same rows."""
    return [
        f"{lead.sweep} against {lead.first}: {lead.found.metric} {in_words(lead.found)}" for lead in comparison.leads
    ]


def changes_part(comparison: Comparison) -> Table:
    """A row for each key that is not the same everywhere."""
    rows = [[change.key, *(_cell(value) for value in change.values)] for change in comparison.changes]
    return Table("What changed", ["key", *comparison.names], rows)


def tops_part(comparison: Comparison) -> Table:
    """The best trials of every sweep, with all settings that any of them searched."""
    boards = [(facts.summary.sweep, *leaderboard(facts.summary, TOP)) for facts in comparison.sweeps]
    names = list(dict.fromkeys(name for _, columns, _ in boards for name in columns[4:]))
    metric = " or ".join(comparison.metrics)
    rows = []
    for sweep, columns, found in boards:
        for row in found:
            settings: Mapping[str, Any] = dict(zip(columns[4:], row[4:], strict=True))
            rows.append([sweep, *row[:4], *(settings.get(name, "-") for name in names)])
    return Table(f"best {TOP} trials of each", ["sweep", "trial", metric, "state", "seconds", *names], rows)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return clipped(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
