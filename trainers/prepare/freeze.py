"""Freeze: today's rows as files, each row on the side that it has for ever, whatever comes and goes around it.

sources ─► rows ─► side by the hash of the input ─► without duplicates ─► JSON Lines, in a folder named by their hash
                   held out once: held out for ever

Of the rows that are held out for validation, half is on a side of its own, *certify*: what is trained and chosen on the
other files cannot have seen them.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.data.formats.base import MAX_NAMES, DataProblem, cut, places
from trainers.data.passages import passages
from trainers.data.sides import DRAWN, HALVED, SIDES, Input, Rule, Standing, StandingFiles, hash_of, rule_for
from trainers.data.split_names import named_splits
from trainers.data.splits import Placed, Repeat, drop_duplicates
from trainers.prepare.clean_copy import not_json
from trainers.prepare.frozen_rows import About, Indexed, content_hash, difference, read_index, write_rows
from trainers.prepare.notes import contradictions
from trainers.prepare.prepared import Given, read_given
from trainers.protocol.catalog import TASKS as CATALOG
from trainers.protocol.counted import counted
from trainers.protocol.events import Finding
from trainers.protocol.frozen_facts import FrozenRows
from trainers.protocol.requests import Freeze
from trainers.protocol.trial_spec import DataRef
from trainers.tasks.base import Task
from trainers.tasks.instruct import parse_template
from trainers.tasks.table import TASKS

_ALL_COLUMNS = ("chat", "token-classification")
"""Tasks that read columns which `data` does not name, such as tools or nested annotations."""
_MORE_ROWS = "more rows, or files of their own for validation and test under data"


@dataclass(frozen=True)
class _Part:
    """A row, or a passage of running text, with what it is recognised by."""

    input: Input
    row: Placed[Any]
    """Of a passage the document."""
    values: dict[str, Any]
    """What is kept of it: other columns may change from night to night and decide nothing."""
    is_passage: bool = False
    number: int = 0
    """Of a passage in its document."""


@dataclass(frozen=True)
class _Frozen:
    """Everything that is to be written."""

    standing: Standing
    sides: dict[str, list[_Part]]
    repeats: list[Repeat[Any]]


def freeze(request: Freeze) -> FrozenRows:
    """Read all rows and write them on their sides. Raises `DataProblem` with every finding; then nothing is written."""
    workload = request.workload
    task = TASKS[workload.task].at(workload.clock)
    data, notes = named_splits(workload.data)
    given = read_given(task, data)
    if findings := [*given.findings, *given.row_findings()]:
        raise DataProblem(findings)
    files = StandingFiles(Path(request.standing))
    before = files.read()
    frozen = _on_their_sides(task, data, given, before)
    labels = _labels(task, frozen.sides)
    if findings := [*_empty(frozen), *_not_learned(task, frozen.sides, labels), *_not_written(frozen)]:
        raise DataProblem(findings)
    index = [Indexed(s, part.input.hash, content_hash(part.values)) for s in SIDES for part in frozen.sides[s]]
    since = difference([] if request.before is None else read_index(Path(request.before)), index)
    rows = {side: len(frozen.sides[side]) for side in SIDES}
    is_running_text = any(part.is_passage for parts in frozen.sides.values() for part in parts)
    files.write(frozen.standing)
    written = {side: list(_rows(frozen.sides[side])) for side in SIDES}
    digest, folder = write_rows(Path(request.folder), written, index, About(task.name, rows, labels, is_running_text))
    notes += [*given.notes, *_notes(task, data, frozen, rows, before.rule if before else None)]
    if since.taken_from_train:
        taken = counted(
            since.taken_from_train, "row that was trained on before is", "rows that were trained on before are"
        )
        notes.append(f"{taken} held out now, as the files say")
    return FrozenRows(
        digest, str(folder), rows, labels, since.added, since.gone, since.relabelled, is_running_text, notes
    )


def _on_their_sides(task: Task, data: DataRef, given: Given, before: Standing | None) -> _Frozen:
    """Every row once, on its side; rows of the sources of validation and test are never trained on."""
    columns = None if task.name in _ALL_COLUMNS else _columns(task, data)
    parts = {split: [one for row in rows for one in _parts(task, row, columns)] for split, rows in given.splits.items()}
    if not CATALOG[task.name].makes_blocks:  # of several answers to one input, one is kept: the same in every order
        parts = {split: sorted(many, key=_by_content) for split, many in parts.items()}
    different = len({part.input.hash for part in parts["train"]})
    documents = [row for row in given.splits["train"] if row.row.is_document]
    counted = len(documents) if len(documents) == len(given.splits["train"]) else different
    sizes = {"validation": data.validation_size, "test": data.test_size}
    rule, findings = rule_for(sizes, data.seed, counted, list(given.splits), before.rule if before else None)
    if findings:
        raise DataProblem(findings)
    standing = Standing(rule, dict(before.held_out) if before else {})
    sides = standing.sides((part.input, split) for split, many in parts.items() for part in many)
    placed: dict[str, list[_Part]] = {side: [] for side in SIDES}
    for split in ("test", "validation", "train"):
        for part in parts.get(split, ()):
            placed[sides[part.input.hash]].append(part)
    kept, repeats = drop_duplicates({side: [part.row for part in many] for side, many in placed.items()}, SIDES)
    left = {side: {id(row) for row in rows} for side, rows in kept.items()}
    found = {side: [part for part in many if id(part.row) in left[side]] for side, many in placed.items()}
    if not CATALOG[task.name].makes_blocks:  # there the rows before and after one are its context
        found = {s: sorted(many, key=lambda part: (part.input.hash, str(part.row.key))) for s, many in found.items()}
    standing.hold_out(sides)
    return _Frozen(standing, found, repeats)


def _by_content(part: _Part) -> tuple[str, str]:
    return part.input.hash, repr(part.values)  # not as JSON, which has no words for some values: that is a finding


def _parts(task: Task, row: Placed[Any], columns: Sequence[str] | None) -> Iterator[_Part]:
    """A row, or a document's passages."""
    if row.row.is_document and CATALOG[task.name].makes_blocks:
        for number, passage in enumerate(passages(row.example.text)):
            yield _Part(passage.input, row, {"text": passage.text}, is_passage=True, number=number)
    else:
        values = {name: one for name, one in row.row.values.items() if columns is None or name in columns}
        yield _Part(Input(hash_of(task.input_of(row))), row, values)


def _rows(parts: Sequence[_Part]) -> Iterator[dict[str, Any]]:
    """The rows to write: passages that follow one another in a document are one row again."""
    joined: list[_Part] = []
    for part in parts:
        if joined and not (part.row is joined[-1].row and part.number == joined[-1].number + 1):
            yield _one_text(joined)
            joined = []
        if part.is_passage:
            joined.append(part)
        else:
            yield part.values
    if joined:
        yield _one_text(joined)


def _one_text(parts: Sequence[_Part]) -> dict[str, Any]:
    return {"text": "".join(part.values["text"] for part in parts)}


def _columns(task: Task, data: DataRef) -> list[str]:
    """The columns that a task reads."""
    if task.name == "instruct":
        return [name for _, name in parse_template(data.columns["text_template"]) if name is not None]
    return list(data.columns.values())


def _labels(task: Task, sides: Mapping[str, Sequence[_Part]]) -> dict[str, dict[str, int]]:
    """Side -> label -> rows that have it."""
    counts = {
        side: Counter(label for part in parts for label in task.labels([part.row.example]))
        for side, parts in sides.items()
    }
    return {side: dict(sorted(many.items())) for side, many in counts.items()}


def _place(side: str) -> str:
    """The key of the file that a side follows from."""
    return "data.validation" if side == HALVED else f"data.{side}"


def _empty(frozen: _Frozen) -> list[Finding]:
    """Findings for sides without a row."""
    rows = sum(map(len, frozen.sides.values()))
    shares = frozen.standing.rule.shares
    drawn = {split: f" by a share of {shares[split]:.3g}" if split in shares else "" for split in DRAWN}
    drawn[HALVED] = ", which gets about half of the rows for validation"
    return [
        Finding(_place(side), f"of {counted(rows, 'row')} none is in {side}{drawn.get(side, '')}", _MORE_ROWS)
        for side in SIDES
        if not frozen.sides[side]
    ]


def _not_learned(
    task: Task, sides: Mapping[str, Sequence[_Part]], labels: Mapping[str, Mapping[str, int]]
) -> list[Finding]:
    """A finding for each held-out side with labels that no training row has."""
    findings = []
    for side in SIDES[1:]:
        unknown = [label for label in labels[side] if label not in labels["train"]] if sides["train"] else []
        said = []
        for label in unknown[:MAX_NAMES]:
            at = [part.row.row.where for part in sides[side] if label in task.labels([part.row.example])]
            said.append(f"{cut(label)} ({places(at)})")
        if unknown:
            more = f" and {len(unknown) - MAX_NAMES:,} more" if len(unknown) > MAX_NAMES else ""
            found = f"labels that no training row has: {', '.join(said)}{more}"
            remedy = "more rows with them (the side of a row follows from its input and stays), or none"
            findings.append(Finding(_place(side), found, remedy))
    return findings


def _not_written(frozen: _Frozen) -> list[Finding]:
    """Findings for columns with values that JSON cannot represent."""
    parts = [part for side in SIDES for part in frozen.sides[side]]
    return list(not_json([dataclasses.replace(part.row.row, values=part.values) for part in parts]))


def _notes(task: Task, data: DataRef, frozen: _Frozen, rows: Mapping[str, int], before: Rule | None) -> list[str]:
    """How many rows each side has, and what was decided about them."""
    shares = frozen.standing.rule.shares
    counts = ", ".join(f"{side} {rows[side]:,}" for side in SIDES)
    of = {"test": "", "validation": " of the others" if "test" in shares else ""}
    drawn = ", ".join(f"{shares[split]:.3g}{of[split]} for {split}" for split in DRAWN if split in shares)
    what = "passages" if any(part.is_passage for parts in frozen.sides.values() for part in parts) else "rows"
    notes = [f"{what}: {counts}" + (f"; drawn by the hash of the input: about {drawn}" if drawn else "")]
    notes.append("half of the rows for validation certify the release: no training and no search sees them")
    notes += _of_no_effect(data, before) if before else []
    if frozen.repeats:
        others = len(contradictions(task, [(repeat.row, repeat.kept) for repeat in frozen.repeats]))
        have = counted(others, "of them has", "of them have")
        differ = f"; {have} a different answer from the row that is kept" if others else ""
        notes.append(f"{counted(len(frozen.repeats), 'duplicate row')} dropped{differ}")
    return notes


def _of_no_effect(data: DataRef, before: Rule) -> list[str]:
    """Notes on what the file says otherwise than in the night in which it was decided."""
    now = {"validation_size": data.validation_size, "test_size": data.test_size, "split_seed": data.seed}
    then = {**{f"{split}_size": size for split, size in before.asked.items()}, "split_seed": before.seed}
    return [
        f"data.{key} is {now[key]:g} and was {was:g} when rows were first drawn: what was drawn then stays; a sweep of "
        "another name draws again"
        for key, was in then.items()
        if now[key] != was
    ]
