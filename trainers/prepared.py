"""Data and model as a trial will be given them, and every problem on the way: `Inspect` and `Check` both decide by it.

sources ─► rows ─► without duplicates ─► train, validation, test ─► labels ─► tokens
                                                 base model's files ─────────┘
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainers.catalog import TASKS as CATALOG
from trainers.enough import Counts, why_empty
from trainers.model_source import BaseFiles, look_at_base
from trainers.sources import MAX_PLACES, DataProblem, places, read_rows
from trainers.spec import DataRef, Finding, Scale, Workload
from trainers.splits import SPLITS, Placed, Repeat, cut, drop_duplicates
from trainers.tasks.base import Made, Task
from trainers.tasks.table import TASKS
from trainers.tokenizer import control_tokens
from trainers.tokens import Encoded

UNCUT = 1 << 20
"""Tokens: longer than any row."""
MOST_NAMES = 10
"""Labels that one line names."""
MOST_KINDS = 20
"""Kinds of problems of rows that are listed."""
Tokenized = list[tuple[Placed[Any], list[Encoded]]]
"""Rows, each with its tokens."""


@dataclass(frozen=True)
class Given:
    """What the sources hold."""

    splits: dict[str, list[Placed[Any]]]
    """The sound rows of every split that the data names."""
    unsound: dict[str, list[list[Finding]]]
    """What is wrong with each of its other rows."""
    findings: list[Finding]
    """What is wrong with a source as a whole."""

    def row_findings(self) -> list[Finding]:
        """What is wrong with single rows, in bounds."""
        return bounded([f for rows in self.unsound.values() for row in rows for f in row])


@dataclass
class Prepared:
    """What became of the data, as far as it can be used."""

    task: Task
    given: Given
    kept: dict[str, list[Placed[Any]]] = field(default_factory=dict)
    """The sound rows of every split that the data names, without duplicates."""
    repeats: list[Repeat[Placed[Any]]] = field(default_factory=list)
    splits: dict[str, list[Placed[Any]]] = field(default_factory=dict)
    """train, validation and test after the cut."""
    labels: list[str] = field(default_factory=list)
    scale: Scale | None = None
    base: BaseFiles | None = None
    tokens: dict[str, Tokenized] = field(default_factory=dict)
    """Of each split, when there is a tokenizer and a row to tokenize."""
    findings: list[Finding] = field(default_factory=list)
    """What is wrong with the model, and what no row can know alone."""
    notes: list[str] = field(default_factory=list)

    def all_findings(self, *, with_rows: bool = True) -> list[Finding]:
        """All that is wrong, or all but what is wrong with single rows."""
        return [*self.given.findings, *(self.given.row_findings() if with_rows else ()), *self.findings]


def prepare(workload: Workload) -> Prepared:
    """Read, check, cut and tokenize, going on past each problem as far as that makes sense."""
    task = TASKS[workload.task].at(workload.clock)
    made = Prepared(task, read_given(task, workload.data))
    made.base = look_at_base(workload, made.findings)
    made.kept, made.repeats = drop_duplicates(made.given.splits)
    made.splits = cut_splits(made.kept, workload.data)
    if made.splits["train"] and not made.given.findings:
        train = [row.example for row in made.splits["train"]]
        made.labels, made.scale = task.labels(train), task.scale(train)
        made.findings += task.check_all(made.splits["train"], str(workload.data.train))
        made.findings += unknown_labels(task, made.splits, made.labels)
        made.notes += task.notes(train)
    if made.base is not None:
        made.notes += [*made.base.notes, *task.head_notes(made.base.config, made.labels)]
        made.notes += task.tokenizer_notes(made.base.tokenizer)
        if not CATALOG[task.name].makes_blocks:
            made.notes += spelled_control_tokens(made.base.tokenizer, made.splits)
        _tokenize(made, made.base)
    if not made.given.findings:
        made.findings += why_empty(counts_of(made), workload.data, lambda split: learns_uncut(made, split))
    return made


def read_given(task: Task, data: DataRef) -> Given:
    """The rows of every split that the data names, each looked at alone."""
    given = Given({}, {}, [])
    for name, source in data.sources().items():
        unsound: list[list[Finding]] = []
        try:
            rows = read_rows(source, name, unsound)
        except DataProblem as problem:
            given.findings.extend(problem.findings)
            rows = []
        else:
            if not rows and not unsound:
                given.findings.append(Finding(str(source), "is empty", "expected at least a few rows"))
        checked = [(row, task.check(row, data.columns)) for row in rows]
        given.unsound[name] = unsound + [[c] for _, c in checked if isinstance(c, Finding)]
        given.splits[name] = [
            Placed(c.example, c.key, c.stratum, row) for row, c in checked if not isinstance(c, Finding)
        ]
    return given


def cut_splits(kept: Mapping[str, list[Placed[Any]]], data: DataRef) -> dict[str, list[Placed[Any]]]:
    """All splits, cut from train where the data names no source of their own."""
    splits = dict(kept)
    for name in ("test", "validation"):
        if name not in data.sources():
            size = data.test_size if name == "test" else data.validation_size
            splits["train"], splits[name] = cut(splits["train"], size, data.seed)
    return splits


def unknown_labels(task: Task, splits: Mapping[str, Sequence[Placed[Any]]], labels: Sequence[str]) -> list[Finding]:
    """Every label that no training row has, and where it stands."""
    findings, known = [], set(labels)
    for name in ("validation", "test"):
        at: dict[str, list[str]] = {}
        for row in splits[name] if known else ():
            for unknown in set(task.labels([row.example])) - known:
                at.setdefault(unknown, []).append(row.row.where)
        if at:
            named = ", ".join(f"{label} ({places(at[label])})" for label in sorted(at)[:MOST_NAMES])
            more = f" and {len(at) - MOST_NAMES} more" if len(at) > MOST_NAMES else ""
            found = f"labels that no training row has: {named}{more}"
            has = f"training has: {', '.join(labels[:MOST_NAMES])}{' ...' * (len(labels) > MOST_NAMES)}"
            findings.append(Finding(f"data.{name}", found, has))
    return findings


def spelled_control_tokens(tokenizer: Any, splits: Mapping[str, Sequence[Placed[Any]]]) -> list[str]:
    """A note on rows that spell a control token, which is text there: who meant to end a text by hand should know."""
    tokens = {json.dumps(token)[1:-1]: token for token in control_tokens(tokenizer)}
    pattern = re.compile("|".join(re.escape(spelled) for spelled in sorted(tokens, key=len, reverse=True)) or "(?!)")
    at: dict[str, list[str]] = {}
    for row in itertools.chain.from_iterable(splits[name] for name in SPLITS):
        if found := pattern.search(json.dumps(row.row.values, default=str)):
            at.setdefault(tokens[found[0]], []).append(row.row.where)
    named = [f"{token} ({places(wheres)})" for token, wheres in itertools.islice(at.items(), MOST_NAMES)]
    return [f"rows spell control tokens, which are read as text: {', '.join(named)}"] if named else []


def bounded(findings: Sequence[Finding]) -> list[Finding]:
    """Findings of rows, each kind with its first places and the number of others, at most `MOST_KINDS` of them."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        kinds.setdefault((finding.found, finding.expected), []).append(finding.where)
    shown: list[Finding] = []
    for (found, expected), wheres in itertools.islice(kinds.items(), MOST_KINDS):
        if len(wheres) <= MAX_PLACES:
            shown += [Finding(where, found, expected) for where in wheres]
        else:
            shown.append(Finding(wheres[0], f"{found} ({len(wheres):,} rows: also {places(wheres[1:])})", expected))
    if more := sum(len(wheres) for wheres in itertools.islice(kinds.values(), MOST_KINDS, None)):
        shown.append(Finding(findings[-1].where.split(":")[0], f"and {more:,} more problems of rows"))
    return shown


def _tokenize(made: Prepared, base: BaseFiles) -> None:
    """Tokenize every split; an example that cannot be tokenized is an unsound row, a task that cannot is a finding."""
    for name in SPLITS:
        try:
            tokens = tokenize(made.task, base.tokenizer, made.splits[name], made.labels, base.max_length)
        except DataProblem as problem:
            made.findings += problem.findings
            return
        made.tokens[name] = [(row, one) for row, one in tokens if not isinstance(one, Finding)]
        refused = {id(row): one for row, one in tokens if isinstance(one, Finding)}
        if refused:
            _leave_out(made, name, refused)


def _leave_out(made: Prepared, split: str, refused: Mapping[int, Finding]) -> None:
    """Count rows among the unsound ones of the source that they came from."""
    made.splits[split] = [row for row in made.splits[split] if id(row) not in refused]
    for name, unsound in made.given.unsound.items():
        rows = made.kept[name]
        unsound += [[refused[id(row)]] for row in rows if id(row) in refused]
        made.kept[name] = [row for row in rows if id(row) not in refused]
        made.given.splits[name] = [row for row in made.given.splits[name] if id(row) not in refused]


def tokenize(
    task: Task, tokenizer: Any, rows: Sequence[Placed[Any]], labels: Sequence[str], max_length: int
) -> list[tuple[Placed[Any], Made]]:
    """Rows with their tokens, or why they have none. Rows with labels that no training row has are left out: they are
    a finding already."""
    known = set(labels)
    sound = [row for row in rows if known.issuperset(task.labels([row.example]))]
    if not sound:
        return []
    return list(zip(sound, task.encode(tokenizer, [row.example for row in sound], labels, max_length), strict=True))


def counts_of(made: Prepared) -> Counts:
    """How many rows each step has left, for words on what took them."""
    return Counts(
        given={name: len(rows) for name, rows in made.given.splits.items()},
        repeats=[(repeat.split, repeat.kept_split) for repeat in made.repeats],
        cut={name: len(made.splits[name]) for name in SPLITS},
        strata=len({row.stratum for row in made.kept.get("train", [])}),
        learned={name: sum(len(one) for _, one in rows) for name, rows in made.tokens.items() if rows},
    )


def learns_uncut(made: Prepared, split: str) -> bool:
    """Whether a split whose rows hold nothing to learn would hold something without `max_length`."""
    if made.base is None:
        return False
    rows = made.splits[split][:1000]
    return any(one for _, one in tokenize(made.task, made.base.tokenizer, rows, made.labels, UNCUT))
