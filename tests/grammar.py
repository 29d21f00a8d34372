"""The tables of keys in `search_spaces/README.md`: made of the declarations in `hpo/config/` and the catalog.

python -m tests.grammar      write them again
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby

from hpo.config.budget import BUDGET
from hpo.config.extra_metrics import GENERATION, METRICS_KEY
from hpo.config.file import METHOD_KEY, NAME, SEED
from hpo.config.keys import Group, Key, Text
from hpo.config.model_and_data import DATA, MODEL, SOURCE
from hpo.config.nightly import NIGHTLY
from hpo.config.notify import NOTIFY, NOTIFY_KEYS, WEBHOOK
from hpo.config.objective import CONSTRAINTS, OBJECTIVE
from hpo.config.pruner import NUMBERS, PRUNER, STOPS_WHEN
from hpo.config.run import RUN
from hpo.config.small_sections import EXPERIMENT, FINALISTS, PROMOTE, REPORT_TO, TRIALS
from hpo.config.space_section import DIMENSION
from hpo.config.strategy import STRATEGY
from hpo.pruning.table import RULES
from tests.maps import ROOT
from trainers.protocol.catalog import METHODS, TASKS
from trainers.protocol.settings import ALIASES, FIELDS, Field

PAGE = ROOT / "search_spaces/README.md"
TABLE = re.compile(r"(?<=<!-- table: )(\w+)( -->\n\n).*?(?=\n<!-- end of table -->)", re.S)
Row = tuple[str, ...]
"""Cells; the first one is a name."""


def table(head: str, rows: Iterable[Row]) -> str:
    """A Markdown table. Rows that follow each other and differ in their name only are one row."""
    lines = [f"| {head} |", "|" + "---|" * (head.count("|") + 1)]
    for cells, same in groupby(rows, key=lambda row: row[1:]):
        lines.append(f"| {', '.join(f'`{name}`' for name, *_ in same)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def rows(keys: Iterable[Key], below: str = "") -> list[Row]:
    """Name, default and meaning of each key; a section without a short form is just its keys."""
    found: list[Row] = []
    for key in keys:
        if isinstance(key, Group) and not key.short:
            found += rows(key.keys, f"{below}{key.name}.")
        else:
            found.append((below + key.name, key.default_in_words(), key.help))
    return found


def keys(*found: list[Row]) -> str:
    """A table of keys."""
    return table("key | default | meaning", [row for some in found for row in some])


def setting(field: Field) -> Row:
    """A training setting; `*` marks those that can be dimensions."""
    means = field.help
    if field.choices:
        means += "; one of " + listed(field.choices)
    if 0 < len(field.methods) <= 3:
        means += f"; for {listed(field.methods)}"
    others: dict[str, list[str]] = {}
    for kind in (*METHODS.values(), *TASKS.values()):
        if kind.defaults.get(field.name, field.default) != field.default:
            others.setdefault(f"{kind.defaults[field.name]:g}", []).append(kind.name)
    if others:
        means += " (" + "; ".join(f"{listed(names)}: {value}" for value, names in others.items()) + ")"
    return field.name, Text(field.name, field.default, "").default_in_words(), "* " * field.searchable + means


def listed(names: Iterable[str]) -> str:
    """Names in code spans, between commas."""
    return ", ".join(f"`{name}`" for name in names)


def rule(name: str) -> Row:
    """A pruning rule: its keys with their defaults, and when a trial stops."""
    fields = dataclasses.fields(RULES[name])
    own = [f"`{f.name}`" if f.name == "rule" or f.default is None else f"`{f.name}: {f.default:g}`" for f in fields]
    return name, ", ".join(own), STOPS_WHEN[name]


TABLES: Mapping[str, Callable[[], str]] = {
    "metrics": lambda: keys(rows([METRICS_KEY]), rows(GENERATION, "generation.")),
    "data": lambda: keys(rows(DATA.keys)),
    "source": lambda: keys(rows(SOURCE, "train.")),
    "model": lambda: keys(rows(MODEL.keys, "model.")),
    "training": lambda: table("setting | default | meaning", map(setting, FIELDS.values())),
    "aliases": lambda: table(
        "name | setting | meaning", [(a.name, f"`{a.canonical}`", a.help) for a in ALIASES.values()]
    ),
    "dimension": lambda: keys(rows(DIMENSION)),
    "search_strategy": lambda: keys(rows(STRATEGY, "search_strategy.")),
    "objective": lambda: keys(rows(OBJECTIVE, "objective."), rows(CONSTRAINTS, "constraints.")),
    "pruner": lambda: keys(rows(PRUNER, "pruner.")),
    "rules": lambda: table("rule | keys and defaults | a trial stops when", map(rule, STOPS_WHEN)),
    "numbers": lambda: table("key of a rule | meaning", [(name, key.help) for name, key in NUMBERS.items()]),
    "budget": lambda: keys(rows(BUDGET, "budget.")),
    "finalists": lambda: keys(rows([FINALISTS]), rows(FINALISTS.keys, "finalists.")),
    "nightly": lambda: keys(rows([key for key in NIGHTLY.keys if key is not NOTIFY], "nightly.")),
    "rest": lambda: keys(
        rows([NAME, METHOD_KEY]), rows(TRIALS.keys, "trials."), rows(RUN.keys, "run."), rows([PROMOTE]),
        rows(PROMOTE.keys, "promote."), rows([REPORT_TO, EXPERIMENT, SEED]),
    ),
    "notify": lambda: keys(
        rows(NOTIFY_KEYS, "nightly.notify."), rows(WEBHOOK.keys, "nightly.notify.webhook."),
    ),
}  # fmt: skip
"""Name of a table in the page -> what it holds."""


def page(text: str) -> str:
    """The page with every table as it is declared."""
    return TABLE.sub(lambda found: found[1] + found[2] + TABLES[found[1]](), text)


def main() -> None:
    PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()
