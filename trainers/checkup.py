"""Check: what data and model turned out to be, told whole even where something is wrong; `hpo check` shows it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from trainers.inspection import (
    check_enough,
    check_labels,
    check_model,
    cut_splits,
    load_tokenizer,
    model_folder,
    read_given,
)
from trainers.sources import DataProblem
from trainers.spec import Check, Checked, Finding, Piece, Rendered, SplitFacts
from trainers.splits import SPLITS, Keyed
from trainers.tasks.base import Task
from trainers.tasks.table import TASKS
from trainers.tokens import Encoded

UNCUT = 1 << 20
"""Tokens: longer than any row."""
EXAMPLES = 3
NEAR_EMPTY = 10
"""A label with fewer training rows is hard to learn and hard to measure."""


def check(request: Check) -> Checked:
    """Every finding, and facts of the rows that are sound. Raises `DataProblem` where a source cannot be read."""
    workload = request.workload
    task = TASKS[workload.task]
    findings: list[Finding] = []
    given = read_given(task, workload.data, findings)
    as_given = {name: [row.key for row in rows] for name, rows in given.items()}
    splits, _ = cut_splits(given, workload.data)
    if splits["train"]:
        findings += task.check_all(splits["train"], workload.data.train)
    folder = model_folder(workload.model)
    try:
        check_model(folder, workload)
    except DataProblem as problem:
        findings += problem.findings
    tokenizer = load_tokenizer(folder, workload.model.trust_remote_code)
    labels = task.labels([row.example for row in splits["train"]])
    try:
        check_enough({name: len(rows) for name, rows in splits.items()}, workload.data)
        check_labels(task, splits, labels)
    except DataProblem as problem:
        findings += problem.findings
    facts, examples = {}, []
    for name in SPLITS:
        encoded = _encode(task, tokenizer, splits[name], labels, UNCUT)
        facts[name] = _facts(task, name, splits[name], encoded, labels, as_given, workload.max_length)
    for made in _encode(task, tokenizer, splits["train"][:EXAMPLES], labels, workload.max_length):
        examples += [_rendered(one, tokenizer, labels, task) for one in made[:1]]
    return Checked(findings, facts, examples, _notes(facts, workload.max_length))


def _encode(
    task: Task, tokenizer: Any, rows: Sequence[Keyed[Any]], labels: Sequence[str], max_length: int
) -> list[list[Encoded]]:
    """Rows with labels that no training row has are left out: they were found before."""
    known = [r for r in rows if set(task.labels([r.example])) <= set(labels)]
    return task.encode(tokenizer, [row.example for row in known], labels, max_length) if known else []


def _facts(
    task: Task, name: str, rows: Sequence[Keyed[Any]], encoded: Sequence[Sequence[Encoded]], labels: Sequence[str],
    as_given: Mapping[str, Sequence[Hashable]], max_length: int,
) -> SplitFacts:  # fmt: skip
    mine = as_given.get(name, ())
    shared = {
        other: count for other, keys in as_given.items() if other != name and (count := len(set(mine) & set(keys)))
    }
    lengths = np.array([len(one.ids) for made in encoded for one in made] or [0])
    over = lengths[lengths > max_length]
    percentiles = {f"p{p}": int(np.percentile(lengths, p)) for p in (50, 90, 99)}
    return SplitFacts(
        rows=len(rows),
        duplicates=len(mine) - len(set(mine)),
        shared=shared,
        labels=_label_counts(task, encoded, labels),
        token_percentiles={**percentiles, "max": int(lengths.max())},
        too_long=len(over),
        tokens_cut=int((over - max_length).sum()),
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


def _notes(facts: Mapping[str, SplitFacts], max_length: int) -> list[str]:
    """What is no mistake but should be known; nothing is mended silently."""
    notes = []
    for name, fact in facts.items():
        if fact.duplicates:
            notes.append(f"{name}: {fact.duplicates} duplicate rows; a sweep drops them")
        for other, count in fact.shared.items():
            if SPLITS.index(name) < SPLITS.index(other):
                notes.append(f"{count} rows are in {name} and in {other}; a sweep keeps them in {other} only")
        if fact.too_long:
            cut_off = f"{fact.tokens_cut} tokens are cut"
            notes.append(f"{name}: {fact.too_long} rows are longer than max_length {max_length}: {cut_off}")
    train = facts["train"]
    counts = {label: count for label, count in train.labels.items() if label != "O"}
    near_empty = [f"{label} ({count})" for label, count in counts.items() if count < NEAR_EMPTY]
    if near_empty:
        notes.append(f"labels with fewer than {NEAR_EMPTY} training rows: {', '.join(near_empty)}")
    if counts and max(counts.values()) > 0.9 * sum(counts.values()):
        most = max(counts, key=lambda label: counts[label])
        notes.append(f"{most} is {counts[most] / sum(counts.values()):.0%} of the training labels: judge by f1_macro")
    return notes
