"""Check: describes data and model completely, also where something is wrong with them; `hpo check` shows it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainers.data.sources import DataProblem, marked_files
from trainers.data.splits import SPLITS, Placed, repeats_within, shared_with
from trainers.data.tokenizer import reading
from trainers.data.tokens import Encoded
from trainers.model.source import BaseFiles
from trainers.prepare.clean_copy import clean_copy
from trainers.prepare.data_findings import Tokenized, label_counts
from trainers.prepare.inspect import prepared_data
from trainers.prepare.notes import Seen, notes_on
from trainers.prepare.prepared import UNCUT, Given, Prepared, prepare, tokenize
from trainers.prepare.served import compare_served
from trainers.prepare.shift import compare_nights
from trainers.protocol.catalog import TASKS as CATALOG
from trainers.protocol.checked_facts import Piece, Rendered, SplitFacts
from trainers.protocol.events import Checked, Finding
from trainers.protocol.requests import Check
from trainers.tasks.base import Task

EXAMPLES = 3


def check(request: Check) -> Checked:
    """Every finding, facts about the valid rows, and the clean copy where the request asks for one.

    The findings are those for which a sweep is refused, because both use `prepare`. Raises `DataProblem` with all
    findings where a source or the model cannot be read.
    """
    made = prepare(request.workload, request.intent)
    # A clean copy leaves out invalid rows.
    findings = made.all_findings(with_rows=request.clean_dir is None)
    base = made.base
    if made.given.findings or base is None or len(made.tokens) < len(SPLITS):
        raise DataProblem(findings)
    uncut = {name: _uncut(made, base, name) for name in SPLITS}
    seen = {name: _look(made.task, name, uncut[name], made.given, base.max_length) for name in SPLITS}
    facts = {name: _facts(made.task, made.splits[name], uncut[name], made.labels, seen[name]) for name in SPLITS}
    first = [(row, many[0]) for row, many in made.tokens["train"] if many][:EXAMPLES]
    examples = [_rendered(row, one, base.tokenizer, made.labels, made.task) for row, one in first]
    sources = made.data.sources().values()
    marked = list(dict.fromkeys(file for source in sources for file in marked_files(source)))
    notes = made.notes + notes_on(seen, facts["train"].labels, marked, made.task, base.max_length)
    copy = None
    if request.clean_dir is not None and not findings:
        read = reading(base.tokenizer)
        copy = clean_copy(Path(request.clean_dir), made.given, made.kept, made.repeats, marked, read)
    served = compare_served(made, base.tokenizer, request.served) if request.served else None
    since = None if request.before is None else compare_nights(made, Path(request.before))
    prepared = None if made.all_findings() else prepared_data(request.workload, made)
    return Checked(findings, facts, examples, notes, base.max_length, copy, served, since, prepared)


def _uncut(made: Prepared, base: BaseFiles, split: str) -> Tokenized:
    """A split's rows with their tokens, without a limit of length."""
    rows = made.splits[split]
    if CATALOG[made.task.name].makes_blocks:  # one text at a time, else blocks would join texts
        tokens = [one for row in rows for one in tokenize(made.task, base.tokenizer, [row], made.labels, UNCUT)]
    else:
        tokens = tokenize(made.task, base.tokenizer, rows, made.labels, UNCUT)
    return [(row, one) for row, one in tokens if not isinstance(one, Finding)]


def _look(task: Task, name: str, tokens: Tokenized, given: Given, max_length: int) -> Seen:
    mine = given.splits.get(name, [])
    shared = {other: shared_with(mine, rows) for other, rows in given.splits.items() if other != name}
    over = [(row, _tokens_over(task, one, max_length)) for row, made in tokens for one in made]
    return Seen(
        rows=[row for row, _ in tokens],
        duplicates=repeats_within(mine),
        shared={other: pairs for other, pairs in shared.items() if pairs},
        too_long=[(row, count) for row, count in over if count],
    )


def _tokens_over(task: Task, one: Encoded, max_length: int) -> int:
    """How many tokens of a row `max_length` cuts off."""
    return sum(max(0, count - most) for count, most in task.lengths(one, max_length))


def _facts(task: Task, rows: Sequence[Placed[Any]], tokens: Tokenized, labels: Sequence[str], seen: Seen) -> SplitFacts:
    encoded = [made for _, made in tokens]
    lengths = np.array([len(one.ids) for made in encoded for one in made] or [0])
    percentiles = {f"p{p}": int(np.percentile(lengths, p)) for p in (50, 90, 99)}
    return SplitFacts(
        rows=len(rows),
        duplicates=len(seen.duplicates),
        shared={other: len(pairs) for other, pairs in seen.shared.items()},
        labels=label_counts(task, tokens, labels),
        token_percentiles={**percentiles, "max": int(lengths.max())},
        too_long=len(seen.too_long),
        tokens_cut=sum(count for _, count in seen.too_long),
    )


def _rendered(row: Placed[Any], one: Encoded, tokenizer: Any, labels: Sequence[str], task: Task) -> Rendered:
    """A row's text in pieces, each learned or not; or its text with the answer, where the answer is not in the text."""
    if task.targets == "token" and labels:
        words = zip(tokenizer.convert_ids_to_tokens(one.ids), one.targets, strict=True)
        return Rendered([Piece(f"{w}/{labels[int(t) - 1]} " if t else f"{w} ", bool(t)) for w, t in words])
    if task.targets == "token":
        runs = itertools.groupby(zip(one.ids, one.targets, strict=True), key=lambda pair: bool(pair[1]))
        return Rendered([Piece(tokenizer.decode([i for i, _ in run]), is_learned) for is_learned, run in runs])
    text = [Piece(tokenizer.decode(one.ids), is_learned=False)]
    if task.targets == "sequence":
        return Rendered(text, tokenizer.decode([int(t) - 1 for t in one.targets]))
    if not labels:
        return Rendered(text, f"{one.targets[0]:g}" if one.targets else "none")
    return Rendered(text, ", ".join(task.labels([row.example])) or "none")
