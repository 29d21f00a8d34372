"""The report as one HTML file that needs no network: text and tables from templates, charts by scripts."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from hpo.report.charts import charts
from hpo.report.comparison import Comparison
from hpo.report.comparison_charts import comparison_charts
from hpo.report.comparison_parts import answers_part, changes_part, leads_lines, tops_part
from hpo.report.facts import ReportFacts
from hpo.report.parts import (
    MOST_ROWS,
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
from hpo.results.importance import FEWEST_TRIALS
from hpo.results.json_text import COMPACT, laid_out
from hpo.results.leaderboard import gain, notes, saved_in_words
from hpo.results.release_text import variant_lines

HERE = Path(__file__).parent
SCRIPTS = ("drawing.js", "density.js", "charts.js", "still.js", "filter.js")
COMPARING_SCRIPTS = ("drawing.js", "comparison.js")
MOST_FAILURES = 20
"""That are listed with their messages."""


def html_page(facts: ReportFacts) -> str:
    """The whole page. Whatever a person wrote (labels, texts, names) is escaped by the template."""
    return _templates().get_template("page.html").render(
        title=f"{facts.summary.sweep}: {facts.summary.objective.metric}",
        facts=facts,
        summary=facts.summary,
        answer=gain(facts.summary),
        verdicts=verdicts(facts.summary),
        notes=[*saved_in_words(facts.summary.savings), *notes(facts.summary)],
        released=released_lines(facts.summary),
        leaderboard=leaderboard_part(facts.summary, MOST_ROWS),
        not_tried=not_tried_part(facts.summary),
        finalists=finalists_part(facts.summary),
        variants=variants_part(facts.summary),
        variant_lines=variant_lines(facts.summary),
        failures=[t for t in facts.summary.trials if t.state == "failed"],
        most_failures=MOST_FAILURES,
        importances=importances_part(facts),
        importances_line=importances_line(facts),
        fewest_trials=FEWEST_TRIALS,
        workers=workers_part(facts.summary),
        workers_line=workers_line(facts.summary),
        rows_lines=rows_lines(facts.rows) if facts.rows else [],
        slices=slices_part(facts.rows) if facts.rows else None,
        confusion=_as_image(facts.confusion_svg),
        data=data_part(facts),
        labels=labels_part(facts),
        data_lines=data_lines(facts),
        origin=origin_part(facts),
        reproducing=reproducing_line(facts),
        config=json.dumps(facts.config, indent=2),
        **_page(charts(facts), SCRIPTS),
    )  # fmt: skip


def html_comparison(comparison: Comparison) -> str:
    """Several sweeps on one page."""
    return _templates().get_template("comparison.html").render(
        title=" against ".join(comparison.names),
        names=comparison.names,
        answers=[(facts.summary.sweep, gain(facts.summary)) for facts in comparison.sweeps],
        cautions=comparison.cautions,
        leads=leads_lines(comparison),
        table_of_answers=answers_part(comparison),
        changes=changes_part(comparison),
        tops=tops_part(comparison),
        **_page(comparison_charts(comparison), COMPARING_SCRIPTS),
    )  # fmt: skip


@cache
def _templates() -> Environment:
    return Environment(loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def _page(drawn: Any, scripts: Sequence[str]) -> dict[str, str]:
    """What the frame around every page needs."""
    script = "\n".join(_read(name) for name in scripts)
    return {"charts": _for_script(drawn), "style": _read("page.css"), "script": script}


@cache
def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _for_script(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return laid_out(value, COMPACT).replace("<", "\\u003c")


def _as_image(svg: str | None) -> str | None:
    """An SVG as the address of an image: as one it runs no script and loads nothing."""
    return None if svg is None else f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
