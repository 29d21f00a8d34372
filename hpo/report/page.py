"""The report as one HTML file that needs no network: text and tables from a template, charts by its scripts."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment

from hpo.config.objective import gate_of
from hpo.report.charts import charts
from hpo.report.facts import ReportFacts
from hpo.results.importance import FEWEST_TRIALS
from hpo.results.summary import SweepSummary
from hpo.results.tables import (
    challenger_line,
    finalists_table,
    finalists_title,
    gain,
    leaderboard,
    notes,
    release_line,
    saved_in_words,
    variant_lines,
    variants_name,
    variants_table,
    verdicts,
)

HERE = Path(__file__).parent
SCRIPTS = ("drawing.js", "charts.js", "filter.js")
MOST_ROWS = 500
"""Of the leaderboard, best first: further down nobody reads rows."""


@dataclass(frozen=True)
class Table:
    """Columns and rows as the terminal shows them."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def html_page(facts: ReportFacts) -> str:
    """The whole page. Whatever a person wrote (labels, texts, names) is escaped by the template."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_read("page.html"))
    return template.render(
        summary=facts.summary,
        answer=gain(facts.summary),
        verdicts=verdicts(facts.summary),
        notes=[*saved_in_words(facts.summary.savings), *notes(facts.summary)],
        released=released_lines(facts.summary),
        leaderboard=leaderboard_part(facts.summary, MOST_ROWS),
        finalists=finalists_part(facts.summary),
        variants=variants_part(facts.summary),
        variant_lines=variant_lines(facts.summary),
        failures=[t for t in facts.summary.trials if t.state == "failed"][:20],
        importances=facts.importances,
        fewest_trials=FEWEST_TRIALS,
        worst_rows=facts.worst_rows,
        confusion=_as_image(facts.confusion_svg),
        config=json.dumps(facts.config, indent=2),
        charts=_for_script(charts(facts)),
        style=_read("page.css"),
        script="\n".join(_read(name) for name in SCRIPTS),
    )


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _for_script(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _as_image(svg: str | None) -> str | None:
    """An SVG as the address of an image: as one it runs no script and loads nothing."""
    return None if svg is None else f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def released_lines(summary: SweepSummary) -> list[str]:
    """What became of the champion."""
    lines = []
    if release := summary.release:
        lines.append(release_line(summary, release))
    if summary.challenger:
        lines.append(challenger_line(summary.challenger))
    if summary.refusal:
        lines.append(f"not released: {summary.refusal}")
    return lines


def leaderboard_part(summary: SweepSummary, limit: int) -> Table:
    """The best trials."""
    columns, rows = leaderboard(summary, limit)
    more = len(summary.trials) - len(rows)
    return Table(f"best {len(rows):,} of {len(summary.trials):,} trials" if more else "all trials", columns, rows)


def finalists_part(summary: SweepSummary) -> Table | None:
    """None in a sweep without them."""
    if summary.finalists is None:
        return None
    return Table(finalists_title(summary.finalists), *finalists_table(summary.finalists, summary.objective))


def variants_part(summary: SweepSummary) -> Table | None:
    """None where nothing was exported."""
    if summary.torch is None or not summary.variants:
        return None
    metric = gate_of(summary.task, summary.objective).metric
    return Table(variants_name(summary), *variants_table(summary.torch, summary.variants, metric))
