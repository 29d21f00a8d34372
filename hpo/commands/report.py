"""`hpo report`: a sweep as one page, or several compared, or as Markdown, JSON or CSV for other programs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from hpo.commands.report_facts import compare, gather
from hpo.errors import HpoError
from hpo.paths import Home
from hpo.report.comparison import Comparison
from hpo.report.facts import ReportFacts
from hpo.report.text import markdown, markdown_comparison, trials_csv
from hpo.results.json_text import json_text

Format = Literal["html", "md", "json", "csv"]


def report(home: Home, names: Sequence[str], form: Format) -> str:
    """The text of the report of a sweep, or of a comparison of several.

    Raises `UsageError` for a name that is no sweep, `HpoError` for a damaged study.
    """
    names = list(dict.fromkeys(names))
    return _of_one(gather(home, names[0]), form) if len(names) == 1 else _of_several(compare(home, names), form)


def write_report(home: Home, names: Sequence[str], form: Format, to: Path | None) -> Path:
    """Write the report to a file; returns where it is.

    By default that is `report.html` (or `.md`, ...) in the sweep's folder, and for several `comparison.html` in the
    home. A link is followed, and a device or a pipe is written to.

    Raises `HpoError` where the file cannot be written, and as `report` does.
    """
    text = report(home, names, form)
    default = home.sweep(names[0]).dir / f"report.{form}" if len(set(names)) == 1 else home.comparison(form)
    path = to or default
    place = Path(os.path.realpath(path))
    partial = place.with_name(f"{place.name}.partial")
    try:
        if to is None:  # of a sweep that another home runs, there is no folder here
            default.parent.mkdir(parents=True, exist_ok=True)
        if place.exists() and not place.is_file():  # root could replace even /dev/null
            place.write_text(text, encoding="utf-8")
        else:
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, place)  # a reader never sees half of it
    except OSError as error:
        raise HpoError(f"{path} cannot be written: {error.strerror}; choose another file with --output") from error
    return path


def _of_one(facts: ReportFacts, form: Format) -> str:
    if form == "html":
        from hpo.report.page import html_page  # late: the other formats need no templates

        return html_page(facts)
    texts: dict[Format, Callable[[ReportFacts], str]] = {"md": markdown, "json": _json, "csv": trials_csv}
    return texts[form](facts)


def _of_several(comparison: Comparison, form: Format) -> str:
    if form == "html":
        from hpo.report.page import html_comparison  # late, as above

        return html_comparison(comparison)
    texts: dict[Format, Callable[[Comparison], str]] = {
        "md": markdown_comparison, "json": _json, "csv": lambda found: trials_csv(*found.sweeps),
    }  # fmt: skip
    return texts[form](comparison)


def _json(shown: ReportFacts | Comparison) -> str:
    return json_text(shown.to_json()) + "\n"
