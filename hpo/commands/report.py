"""`hpo report`: a sweep as one page, or as Markdown, JSON or CSV for other programs."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from hpo.commands.show import read_sweep
from hpo.errors import HpoError
from hpo.paths import Home
from hpo.report.facts import ReportFacts, facts_of
from hpo.report.page import html_page
from hpo.report.text import markdown, trials_csv
from hpo.study.store import view_study

Format = Literal["html", "md", "json", "csv"]


def report(home: Home, name: str, form: Format) -> str:
    """The report's text. Raises `UsageError` for a name that is no sweep, `HpoError` for a damaged study."""
    facts = gather(home, name)
    texts: dict[Format, Callable[[ReportFacts], str]] = {
        "html": html_page, "md": markdown, "json": _json, "csv": trials_csv,
    }  # fmt: skip
    return texts[form](facts)


def write_report(home: Home, name: str, form: Format, to: Path | None) -> Path:
    """Write the report to a file, by default `report.html` (or `.md`, ...) in the sweep's folder; returns where it is.

    Raises `HpoError` where that file cannot be written.
    """
    text = report(home, name, form)
    path = to or home.sweep(name).dir / f"report.{form}"
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)  # a reader never sees half of it
    except OSError as error:
        raise HpoError(f"{path} cannot be written: {error.strerror}; choose another file with --output") from error
    return path


def gather(home: Home, name: str) -> ReportFacts:
    """Everything that a report shows, from the study and the champion's files."""
    return facts_of(view_study(home.studies_db, name), read_sweep(home, name))


def _json(facts: ReportFacts) -> str:
    shown = {**facts.summary.to_json(), "importances": [dataclasses.asdict(i) for i in facts.importances]}
    return json.dumps({**shown, "config": facts.config}, indent=2) + "\n"
