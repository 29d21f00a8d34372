"""Check: what data and model turned out to be, told whole even where something is wrong; `hpo check` shows it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainers.catalog import TASKS as CATALOG
from trainers.cleaning import clean_copy
from trainers.inspection import (
    Given,
    check_enough,
    check_labels,
    check_model,
    cut_splits,
    load_tokenizer,
    model_folder,
    read_given,
)
from trainers.notes import Seen, notes_on
from trainers.sources import DataProblem, marked_files
from trainers.spec import Check, Checked, Finding, Piece, Rendered, SplitFacts, Workload
from trainers.splits import SPLITS, Placed, drop_duplicates, repeats_within, shared_with
from trainers.tasks.base import Task
from trainers.tasks.table import TASKS
from trainers.tokens import Encoded

UNCUT = 1 << 20
"""Tokens: longer than any row."""
EXAMPLES = 3
Tokenized = list[tuple[Placed[Any], list[Encoded]]]
"""Rows, each with its tokens."""


def check(request: Check) -> Checked:
    """Every finding, and facts of the rows that are sound; then the clean copy, where one is asked for.

    Raises `DataProblem` with all that was found where a source or the model cannot be read.
    """
    workload = request.workload
    task, sources = TASKS[workload.task], workload.data.sources()
    given = read_given(task, workload.data)
    findings = given.all_findings() if request.clean_dir is None else list(given.findings)
    tokenizer = _tokenizer(workload, findings)
    if given.findings or tokenizer is None:
        raise DataProblem(findings)
    kept, repeats = drop_duplicates(given.splits)
    splits = cut_splits(kept, workload.data)
    labels = task.labels([row.example for row in splits["train"]])
    findings += _findings_of_splits(task, workload, splits, labels)
    try:
        tokens = {name: _tokenize(task, tokenizer, splits[name], labels, UNCUT) for name in SPLITS}
        first = _tokenize(task, tokenizer, splits["train"][:EXAMPLES], labels, workload.max_length)
    except DataProblem as problem:  # the tokenizer has no chat template, say
        raise DataProblem([*findings, *problem.findings]) from problem
    seen = {name: _look(task, name, tokens[name], given, workload.max_length) for name in SPLITS}
    facts = {name: _facts(task, splits[name], tokens[name], labels, seen[name]) for name in SPLITS}
    examples = [_rendered(one, tokenizer, labels, task) for _, made in first for one in made[:1]]
    marked = list(dict.fromkeys(file for source in sources.values() for file in marked_files(source)))
    notes = notes_on(seen, facts["train"].labels, marked, task, workload.max_length)
    copy = None
    if request.clean_dir is not None and not findings:
        copy = clean_copy(Path(request.clean_dir), given, kept, repeats, marked)
    return Checked(findings, facts, examples, notes, copy)


def _tokenizer(workload: Workload, findings: list[Finding]) -> Any | None:
    """The model's tokenizer, if it has one; what is wrong with the model goes to `findings`."""
    try:
        folder = model_folder(workload.model)
        try:
            check_model(folder, workload)
        except DataProblem as problem:
            findings += problem.findings
        return load_tokenizer(folder, workload.model.trust_remote_code)
    except DataProblem as problem:
        findings += problem.findings
        return None


def _findings_of_splits(
    task: Task, workload: Workload, splits: Mapping[str, Sequence[Placed[Any]]], labels: Sequence[str]
) -> list[Finding]:
    """What no row can know alone."""
    findings = task.check_all(splits["train"], str(workload.data.train)) if splits["train"] else []
    try:
        check_enough({name: len(rows) for name, rows in splits.items()}, workload.data)
        check_labels(task, splits, labels)
    except DataProblem as problem:
        findings += problem.findings
    return findings


def _tokenize(
    task: Task, tokenizer: Any, rows: Sequence[Placed[Any]], labels: Sequence[str], max_length: int
) -> Tokenized:
    """Rows with labels that no training row has are left out: they were found before."""
    known = [r for r in rows if set(task.labels([r.example])) <= set(labels)]
    if not known:
        return []
    if CATALOG[task.name].makes_blocks:  # one text at a time, or no block would be one of them
        made = [task.encode(tokenizer, [row.example], labels, max_length)[0] for row in known]
    else:
        made = task.encode(tokenizer, [row.example for row in known], labels, max_length)
    return list(zip(known, made, strict=True))


def _look(task: Task, name: str, tokens: Tokenized, given: Given, max_length: int) -> Seen:
    mine = given.splits.get(name, [])
    shared = {other: shared_with(mine, rows) for other, rows in given.splits.items() if other != name}
    is_cut = not CATALOG[task.name].makes_blocks
    over = [(row, _tokens_over(task, one, max_length)) for row, made in tokens for one in made if is_cut]
    return Seen(
        rows=[row for row, _ in tokens],
        duplicates=repeats_within(mine),
        shared={other: pairs for other, pairs in shared.items() if pairs},
        too_long=[(row, count) for row, count in over if count],
    )


def _tokens_over(task: Task, one: Encoded, max_length: int) -> int:
    """Tokens that `max_length` cuts off a row; a text that is to be answered is cut as well."""
    texts = [one.ids, one.targets] if task.targets == "sequence" else [one.ids]
    return sum(max(0, len(text) - max_length) for text in texts)


def _facts(task: Task, rows: Sequence[Placed[Any]], tokens: Tokenized, labels: Sequence[str], seen: Seen) -> SplitFacts:
    encoded = [made for _, made in tokens]
    lengths = np.array([len(one.ids) for made in encoded for one in made] or [0])
    percentiles = {f"p{p}": int(np.percentile(lengths, p)) for p in (50, 90, 99)}
    return SplitFacts(
        rows=len(rows),
        duplicates=len(seen.duplicates),
        shared={other: len(pairs) for other, pairs in seen.shared.items()},
        labels=_label_counts(task, encoded, labels),
        token_percentiles={**percentiles, "max": int(lengths.max())},
        too_long=len(seen.too_long),
        tokens_cut=sum(count for _, count in seen.too_long),
    )


def _label_counts(task: Task, encoded: Sequence[Sequence[Encoded]], labels: Sequence[str]) -> dict[str, int]:
    if not labels:
        return {}
    counts: Counter[str] = Counter()
    for made in encoded:
        for one in made:
            if task.targets == "token":  # a tag for every word, plus one
                counts.update(labels[int(t) - 1] for t in one.targets if t)
            elif len(one.targets) == 1:
                counts[labels[int(one.targets[0])]] += 1
            else:
                counts.update(label for label, has in zip(labels, one.targets, strict=True) if has)
    return {label: counts[label] for label in labels}


def _rendered(one: Encoded, tokenizer: Any, labels: Sequence[str], task: Task) -> Rendered:
    """The text piece by piece as it is learned or not; else the text, and what is to be answered."""
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
        return Rendered(text, f"{one.targets[0]:g}")
    if len(one.targets) == 1:
        return Rendered(text, labels[int(one.targets[0])])
    return Rendered(text, ", ".join(label for label, has in zip(labels, one.targets, strict=True) if has) or "none")
