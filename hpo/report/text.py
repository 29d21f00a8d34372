"""The report where no HTML is shown: Markdown for a pull request or a wiki, CSV of the trials for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from hpo.report.facts import ReportFacts
from hpo.report.page import MOST_ROWS, Table, finalists_part, leaderboard_part, released_lines, variants_part
from hpo.results.markdown import plain, table
from hpo.results.tables import gain, notes, saved_in_words, variant_lines, verdicts

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
        "## Trials",
        _table(leaderboard_part(summary, MOST_ROWS)),
    ]
    if facts.importances:
        rows = [[i.dimension, f"{i.share:.2f}", f"{i.low:.2f} to {i.high:.2f}"] for i in facts.importances]
        parts += ["## Which settings matter", _table(Table("", ["setting", "share", "90 %"], rows))]
    if (part := finalists_part(summary)) is not None:
        parts += ["## Finalists", _table(part)]
    if (part := variants_part(summary)) is not None:
        parts += [f"## {part.title}", _table(part), _list(variant_lines(summary))]
    return "\n\n".join(part for part in parts if part) + "\n"


def trials_csv(facts: ReportFacts) -> str:
    """A row for each trial, in the order of their numbers, with every metric and setting in full precision."""
    trials = facts.summary.trials
    params = list(dict.fromkeys(name for trial in trials for name in trial.params))
    metrics = list(dict.fromkeys(name for trial in trials for name in trial.metrics))
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["trial", "state", "value", "seconds", "cause", *params, *metrics])
    for trial in trials:
        settings = [trial.params.get(name) for name in params]
        measured = [trial.metrics.get(name) for name in metrics]
        writer.writerow([trial.number, trial.state, trial.value, trial.seconds, trial.cause, *settings, *measured])
    return lines.getvalue()


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {plain(line, LONGEST_LINE)}" for line in lines)


def _table(part: Table) -> str:
    return "\n".join(table(part.columns, part.rows)).strip()
