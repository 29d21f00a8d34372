"""`hpo query`: sweeps, trials and evaluations asked in SQL, which can read them and write nothing."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any, Literal

from hpo.commands.show import read_study
from hpo.errors import HpoError, UsageError
from hpo.paths import Home
from hpo.progress_view import ProgressView
from hpo.report.database import Answer, Database
from hpo.results.markdown import table
from hpo.study.one_writer import holders_of_leases
from hpo.study.store import study_names
from trainers.protocol.counted import counted

Format = Literal["json", "csv", "md"]
MOST_NOTES = 10
"""Sweeps that cannot be read, each with its reason."""


def ask(home: Home, question: str, note: Callable[[str], None]) -> Answer:
    """The answer to one SELECT over every sweep that can be read; `note` hears why others are left out.

    Raises `UsageError` for anything else.
    """
    return _database(home, note).ask(question)


def tables(home: Home, note: Callable[[str], None]) -> Answer:
    """What there is to ask for: a row for each column."""
    found = _database(home, note).tables
    return Answer(["table", "column"], [[name, column] for name, columns in found.items() for column in columns])


def _database(home: Home, note: Callable[[str], None]) -> Database:
    """Sweeps with damaged records are left out, as long as any can be read."""
    found, problems, holders = [], [], holders_of_leases(home)
    for name in study_names(home.studies_db):
        try:
            found.append(read_study(home, name, holders=holders))
        except HpoError as error:
            problems.append(str(error))
    if problems and not found:
        raise HpoError("\n".join(problems[:MOST_NOTES]))
    for problem in problems[:MOST_NOTES]:
        note(f"left out: {problem}")
    if (more := len(problems) - MOST_NOTES) > 0:
        note(f"left out: {counted(more, 'more sweep')}; hpo list says why")
    return Database(found)


def answer_text(answer: Answer, form: Format) -> str:
    """The answer for another program, or as Markdown. Raises `UsageError` where JSON cannot hold it."""
    texts: dict[Format, Callable[[Answer], str]] = {"json": _json, "csv": _csv, "md": _markdown}
    return texts[form](answer)


def show_answer(view: ProgressView, answer: Answer) -> None:
    """The answer as a table on a terminal."""
    view.table("", answer.columns, [[_cell(v) for v in row] for row in answer.rows])
    view.say(counted(len(answer.rows), "row"))


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _json(answer: Answer) -> str:
    if len(set(answer.columns)) < len(answer.columns):
        raise UsageError("query: two columns have one name, which JSON cannot hold; give one another name with AS")
    rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
    return json.dumps(rows, indent=2).replace("\x7f", "\\u007f")


def _csv(answer: Answer) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(answer.columns)
    writer.writerows(answer.rows)
    return lines.getvalue().rstrip("\n")


def _markdown(answer: Answer) -> str:
    return "\n".join(table(answer.columns, [[_cell(value) for value in row] for row in answer.rows])).rstrip()
