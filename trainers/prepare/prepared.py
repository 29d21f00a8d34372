"""Prepares data and model for trials and collects every problem; both `Inspect` and `Check` use it.

sources ─► rows ─► without duplicates ─► train, validation, test ─► labels ─► tokens
                                                 base model's files ─────────┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trainers.data.running_text import cut_off_end
from trainers.data.sources import DataProblem, Row, read_rows
from trainers.data.split_names import named_splits
from trainers.data.splits import SPLITS, Keyed, Placed, Repeat, cut, drop_duplicates
from trainers.data.tokenizer import reading
from trainers.model.source import BaseFiles, look_at_base
from trainers.prepare.data_findings import (
    Tokenized,
    bounded,
    spelled_control_tokens,
    tokens_without_embedding,
    too_many_results,
    unknown_labels,
)
from trainers.prepare.enough import Counts, why_empty
from trainers.prepare.model_checks import look_at_model
from trainers.prepare.notes import alike_rows, same_inputs
from trainers.protocol.catalog import TASKS as CATALOG
from trainers.protocol.events import Finding, Scale
from trainers.protocol.requests import Intent
from trainers.protocol.trial_spec import DataRef, Workload
from trainers.tasks.base import Made, Task
from trainers.tasks.table import TASKS

UNCUT = 1 << 20
"""A `max_length` in tokens that is longer than any row."""


@dataclass(frozen=True)
class Given:
    """The content of the sources."""

    splits: dict[str, list[Placed[Any]]] = field(default_factory=dict)
    """The valid rows of every split that the data names."""
    unsound: dict[str, list[list[Finding]]] = field(default_factory=dict)
    """The findings of each invalid row, by split."""
    findings: list[Finding] = field(default_factory=list)
    """The findings about whole sources."""
    notes: list[str] = field(default_factory=list)
    """How files were read, where that is not obvious."""

    def row_findings(self) -> list[Finding]:
        """The findings about single rows, a bounded number of them."""
        return bounded([f for rows in self.unsound.values() for row in rows for f in row])


@dataclass
class Prepared:
    """The result of every step of the preparation, as far as it was possible."""

    task: Task
    data: DataRef
    """The data's sources, with one for each split that file names stand for."""
    given: Given = field(default_factory=Given)
    kept: dict[str, list[Placed[Any]]] = field(default_factory=dict)
    """The valid rows of every split that the data names, without duplicates."""
    repeats: list[Repeat[Placed[Any]]] = field(default_factory=list)
    splits: dict[str, list[Placed[Any]]] = field(default_factory=dict)
    """The final rows of train, validation and test."""
    labels: list[str] = field(default_factory=list)
    scale: Scale | None = None
    base: BaseFiles | None = None
    tokens: dict[str, Tokenized] = field(default_factory=dict)
    """The tokens of each split, where there is a tokenizer."""
    findings: list[Finding] = field(default_factory=list)
    """The findings about the model, and about many rows together."""
    notes: list[str] = field(default_factory=list)

    def all_findings(self, *, with_rows: bool = True) -> list[Finding]:
        """All findings; without `with_rows` those about single rows are left out."""
        return [*self.given.findings, *(self.given.row_findings() if with_rows else ()), *self.findings]


def prepare(workload: Workload, intent: Intent | None = None) -> Prepared:
    """Read, check, split and tokenize the data, and continue after each problem as far as that makes sense."""
    made = Prepared(TASKS[workload.task].at(workload.clock), workload.data)
    _read(made)
    made.base = look_at_base(workload, made.findings)
    made.kept, made.repeats = drop_duplicates(made.given.splits)
    made.splits = cut_splits(made.task, made.kept, made.data)
    _learn_labels(made)
    made.notes += same_inputs(made.task, made.splits)
    if made.base is not None:
        made.base = look_at_model(workload, intent or Intent(), made.base, made.labels, made.findings)
        made.notes += made.base.notes
        if not workload.model.adapter:  # an earlier training has its own head
            made.notes += made.task.head_notes(made.base.config, made.labels)
        made.notes += made.task.tokenizer_notes(made.base.tokenizer)
        if (read := reading(made.base.tokenizer)) is not None:
            made.notes += alike_rows(made.splits, read)
        if not CATALOG[made.task.name].makes_blocks:
            made.notes += spelled_control_tokens(made.base.tokenizer, made.splits)
        _tokenize(made, made.base)
        made.findings += tokens_without_embedding(made.task, made.tokens.values(), made.base)
    if not made.given.findings:
        made.findings += why_empty(counts_of(made), made.data, lambda split: learns_uncut(made, split))
    return made


def _read(made: Prepared) -> None:
    """Find the splits and read their rows."""
    try:
        made.data, notes = named_splits(made.data)
    except DataProblem as problem:
        made.given.findings.extend(problem.findings)
    else:
        made.given = read_given(made.task, made.data)
        made.notes += [*notes, *made.given.notes]


def read_given(task: Task, data: DataRef) -> Given:
    """The rows of every split that the data names, each checked by itself."""
    given, checked = Given(), dict[str, list[tuple[Row, Keyed[Any] | Finding]]]()
    makes_blocks = CATALOG[task.name].makes_blocks
    documents = data.documents if makes_blocks else "line"
    for name, source in data.sources().items():
        unsound: list[list[Finding]] = []
        try:
            rows = read_rows(source, name, unsound, documents, given.notes)
        except DataProblem as problem:
            given.findings.extend(problem.findings)
            rows = []
        else:
            if not rows and not unsound:
                given.findings.append(Finding(str(source), "is empty", "expected at least a few rows"))
        if data.is_running_text or (not makes_blocks and any(row.is_document for row in rows)):
            rows = [replace(row, is_document=makes_blocks) for row in rows]
        checked[name] = [(row, task.check(row, data.columns)) for row in rows]
        given.unsound[name] = unsound
    settled = task.settle([c for _, c in checked["train"] if not isinstance(c, Finding)], data)
    given.notes.extend(settled.notes)
    for name, looked_at in checked.items():
        final = [(row, c if isinstance(c, Finding) else settled.read(c, row.where)) for row, c in looked_at]
        given.unsound[name] += [[c] for _, c in final if isinstance(c, Finding)]
        given.splits[name] = [
            Placed(c.example, c.key, c.stratum, row) for row, c in final if not isinstance(c, Finding)
        ]
    return given


def _learn_labels(made: Prepared) -> None:
    """Collect the labels and the scale of the training rows, and findings about the splits that follow from them."""
    if not made.splits.get("train") or made.given.findings:
        return
    train = [row.example for row in made.splits["train"]]
    made.labels, made.scale = made.task.labels(train), made.task.scale(train)
    made.findings += made.task.check_all(made.splits["train"], str(made.data.train))
    made.findings += unknown_labels(made.task, made.splits, made.labels)
    made.findings += too_many_results(made.task, made.splits, made.labels)
    made.notes += made.task.notes(train)


def cut_splits(task: Task, kept: Mapping[str, list[Placed[Any]]], data: DataRef) -> dict[str, list[Placed[Any]]]:
    """All splits; those without a source are cut from train: the end of running text, a sample of other rows."""
    splits = {"train": list[Placed[Any]](), **kept}
    missing = [name for name in ("test", "validation") if name not in data.sources()]
    for name in missing:
        size = data.test_size if name == "test" else data.validation_size
        documents = [row for row in splits["train"] if row.row.is_document]
        others = [row for row in splits["train"] if not row.row.is_document]
        (first, second), (third, fourth) = cut_off_end(documents, size), cut(others, size, data.seed)
        splits["train"], splits[name] = first + third, second + fourth
    if splits["train"]:
        _give_back_rare_labels(task, splits, missing)
    return splits


def _give_back_rare_labels(task: Task, splits: dict[str, list[Placed[Any]]], held_out: Sequence[str]) -> None:
    """Train on rows that were cut off with a label that no other row of train has: it could not be learned.

    Strata see to this where a row has one label; of several labels they know one.
    """
    known = {label for row in splits["train"] for label in task.labels([row.example])}
    for name in held_out:
        rare: list[Placed[Any]] = []
        for row in splits[name]:
            if not known.issuperset(labels := task.labels([row.example])):
                rare.append(row)
                known.update(labels)
        if len(rare) < len(splits[name]):
            given_back = {id(row) for row in rare}
            splits[name] = [row for row in splits[name] if id(row) not in given_back]
            splits["train"] = splits["train"] + rare


def _tokenize(made: Prepared, base: BaseFiles) -> None:
    """Tokenize every split; a row that cannot be tokenized is an invalid row, a task that cannot is a finding."""
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
    """Move rows to the invalid ones of their source."""
    made.splits[split] = [row for row in made.splits[split] if id(row) not in refused]
    for name, unsound in made.given.unsound.items():
        rows = made.kept[name]
        unsound += [[refused[id(row)]] for row in rows if id(row) in refused]
        made.kept[name] = [row for row in rows if id(row) not in refused]
        made.given.splits[name] = [row for row in made.given.splits[name] if id(row) not in refused]


def tokenize(
    task: Task, tokenizer: Any, rows: Sequence[Placed[Any]], labels: Sequence[str], max_length: int
) -> list[tuple[Placed[Any], Made]]:
    """Rows with their tokens, or with the finding why they have none.

    Rows with labels that no training row has are left out: there is a finding about them already.
    """
    known = set(labels)
    sound = [row for row in rows if known.issuperset(task.labels([row.example]))]
    if not sound:
        return []
    return list(zip(sound, task.encode(tokenizer, [row.example for row in sound], labels, max_length), strict=True))


def counts_of(made: Prepared) -> Counts:
    """How many rows each step leaves, to explain an empty split."""
    return Counts(
        given={name: len(rows) for name, rows in made.given.splits.items()},
        repeats=[(repeat.split, repeat.kept_split) for repeat in made.repeats],
        cut={name: len(made.splits[name]) for name in SPLITS},
        strata=len({row.stratum for row in made.kept.get("train", [])}),
        are_documents=all(row.row.is_document for row in made.kept.get("train", [])),
        learned={name: sum(len(one) for _, one in rows) for name, rows in made.tokens.items() if rows},
    )


def learns_uncut(made: Prepared, split: str) -> bool:
    """Whether a split without anything to learn would have something to learn without `max_length`."""
    if made.base is None:
        return False
    rows = made.splits[split][:1000]
    return any(one for _, one in tokenize(made.task, made.base.tokenizer, rows, made.labels, UNCUT))
