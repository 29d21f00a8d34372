"""The report where no HTML is shown: Markdown for a pull request or a wiki, CSV of the trials for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from hpo.report.comparison import Comparison
from hpo.report.comparison_parts import answers_part, changes_part, leads_lines, tops_part
from hpo.report.facts import ReportFacts
from hpo.report.parts import (
    MOST_ROWS,
    Table,
    data_lines,
    data_part,
    finalists_part,
    importances_line,
    importances_part,
    labels_part,
    leaderboard_part,
    not_tried_part,
    origin_part,
    released_lines,
    reproducing_line,
    rows_lines,
    slices_part,
    variants_part,
    workers_line,
    workers_part,
)
from hpo.results.finalists_text import verdicts
from hpo.results.leaderboard import gain, notes, saved_in_words
from hpo.results.markdown import code, plain, table
from hpo.results.release_text import variant_lines

LONGEST_LINE = 2000
"""Of a sentence, in characters."""


def markdown(facts: ReportFacts) -> str:
    """The page's sentences and tables."""
    summary = facts.summary
    parts = [
        f"# {plain(summary.sweep)}",
        f"**{plain(gain(summary), LONGEST_LINE)}**",
        _list([*verdicts(summary), *released_lines(summary)]),
        "## What to know",
        _list([*saved_in_words(summary.savings), *notes(summary)]),
        *_section("Trials", leaderboard_part(summary, MOST_ROWS)),
        *_section("Points that were not tried", not_tried_part(summary)),
        *_section("Which settings matter", importances_part(facts)),
        _list([line] if (line := importances_line(facts)) else []),
        *_section("Finalists", finalists_part(summary)),
    ]
    if (variants := variants_part(summary)) is not None:
        parts += [*_section(variants.title, variants), _list(variant_lines(summary))]
    if facts.rows:
        parts += [*_section("Rows", slices_part(facts.rows)), _list(rows_lines(facts.rows))]
    if (line := workers_line(summary)) is not None:
        parts += [*_section("Workers", workers_part(summary)), _list([line])]
    parts += [*_section("Data", data_part(facts)), *_section("Labels", labels_part(facts)), _list(data_lines(facts))]
    if (command := reproducing_line(facts)) is not None:
        parts += ["## How to reproduce it", "\n".join(code(command, "sh")).strip()]
        parts += _section("Environment", origin_part(facts))
    return _joined(parts)


def markdown_comparison(comparison: Comparison) -> str:
    """The same of several sweeps."""
    return _joined([
        f"# {plain(' against '.join(comparison.names), LONGEST_LINE)}",
        _list([f"{facts.summary.sweep}: {gain(facts.summary)}" for facts in comparison.sweeps]),
        _list([*leads_lines(comparison), *comparison.cautions]),
        *_section("What each found", answers_part(comparison)),
        *_section("What changed", changes_part(comparison)),
        *_section("The best trials", tops_part(comparison)),
    ])  # fmt: skip


def trials_csv(*sweeps: ReportFacts) -> str:
    """A row for each trial, in the order of their numbers, with every metric and setting in full precision.

    Of several sweeps, the first column has the sweep's name. A metric that is called as another column, as `loss` where
    that is searched, is `validation/loss`, as in MLflow.
    """
    trials = [(facts.summary.sweep, trial) for facts in sweeps for trial in facts.summary.trials]
    params = list(dict.fromkeys(name for _, trial in trials for name in trial.params))
    metrics = list(dict.fromkeys(name for _, trial in trials for name in trial.metrics))
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    is_several = len(sweeps) > 1
    others = [*["sweep"] * is_several, "trial", "state", "value", "seconds", "cause", *params]
    writer.writerow([*others, *(f"validation/{name}" if name in others else name for name in metrics)])
    for sweep, trial in trials:
        settings = [trial.params.get(name) for name in params]
        measured = [trial.metrics.get(name) for name in metrics]
        known = [trial.number, trial.state, trial.value, trial.seconds, trial.cause]
        writer.writerow([*[sweep] * is_several, *known, *settings, *measured])
    return lines.getvalue()


def _joined(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(title: str, part: Table | None) -> list[str]:
    """A table under its heading; its own title follows where it says more: what the numbers are, what is cut."""
    if part is None or not part.rows:
        return []
    said = [] if part.title == title else [plain(part.title, LONGEST_LINE)]
    return [f"## {plain(title)}", *said, _table(part)]


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {plain(line, LONGEST_LINE)}" for line in lines)


def _table(part: Table) -> str:
    return "\n".join(table(part.columns, part.rows)).strip()
