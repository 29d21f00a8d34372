"""Findings about many rows, labels or tokens together, of bounded length: none lists thousands of names. Pure."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from trainers.data.formats.base import MAX_PLACES, places
from trainers.data.splits import SPLITS, Placed
from trainers.data.tokenizer import control_tokens
from trainers.data.tokens import Encoded
from trainers.metrics.table import ROW_RESULTS
from trainers.model.source import BaseFiles
from trainers.protocol.counted import counted
from trainers.protocol.events import Finding
from trainers.tasks.base import Task

MOST_NAMES = 10
"""Labels listed in one line."""
MOST_RESULTS = 50_000_000
"""Numbers in the results of one evaluation (400 MB)."""
MOST_KINDS = 20
"""Different problems of rows that are listed."""
_PLACE_IN_SOURCE = re.compile(r"(:| item | row )\d+$")
"""The end of a row's place (see `Row`)."""
Tokenized = list[tuple[Placed[Any], list[Encoded]]]
"""Rows, each with its tokens."""


def bounded(findings: Sequence[Finding]) -> list[Finding]:
    """Findings about rows, grouped by problem: each problem with its first places and the number of the others.

    At most `MOST_KINDS` problems are listed.
    """
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
        source = _PLACE_IN_SOURCE.sub("", findings[-1].where)
        shown.append(Finding(source, f"and {counted(more, 'more problem')} of rows"))
    return shown


def label_counts(task: Task, tokens: Tokenized, labels: Sequence[str]) -> dict[str, int]:
    """How many rows, or words, have each label."""
    counts: Counter[str] = Counter()
    for row, made in tokens if labels else ():
        if task.targets == "token":  # a tag for every word, plus one
            counts.update(labels[int(target) - 1] for one in made for target in one.targets if target)
        elif made:
            counts.update(task.labels([row.example]))
    return {label: counts[label] for label in labels}


def unknown_labels(task: Task, splits: Mapping[str, Sequence[Placed[Any]]], labels: Sequence[str]) -> list[Finding]:
    """A finding for each split with labels that no training row has, with their places."""
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


def too_many_results(task: Task, splits: Mapping[str, Sequence[Any]], labels: Sequence[str]) -> list[Finding]:
    """A finding for each split whose per-row results are too large to be stored at every evaluation."""
    width = ROW_RESULTS[task.name].width(labels)
    return [
        Finding(
            f"data.{name}",
            f"{len(splits[name]):,} rows with {len(labels):,} labels give {len(splits[name]) * width:,} numbers",
            f"at most {MOST_RESULTS:,} per evaluation: use fewer rows (data.{name}_size) or fewer labels",
        )
        for name in ("validation", "test")
        if len(splits[name]) * width > MOST_RESULTS
    ]


def tokens_without_embedding(task: Task, tokens: Iterable[Tokenized], base: BaseFiles) -> list[Finding]:
    """A finding for each token that rows use but that has no embedding in the model, with the rows."""
    if (known := base.embeddings) is None:
        return []
    at: dict[int, list[str]] = {}
    for row, many in itertools.chain.from_iterable(tokens):
        texts = [text for one in many for text in _texts_of(task, one)]
        if max(map(max, filter(None, texts)), default=0) >= known:
            for token in {token for text in texts for token in text if token >= known}:
                at.setdefault(token, []).append(row.row.where)
    return [
        Finding(
            wheres[0],
            f"the tokenizer makes {base.tokenizer.convert_ids_to_tokens(token)!r} token {token} "
            f"({counted(len(wheres), 'row')}: {places(wheres)}), but the model has {known:,} embeddings",
            "the tokenizer that the model was trained with, or embeddings resized for this one",
        )
        for token, wheres in itertools.islice(sorted(at.items()), MOST_NAMES)
    ]


def _texts_of(task: Task, one: Encoded) -> Iterator[Sequence[int]]:
    """The tokens of a row, and those of its answer where that is a separate text."""
    yield one.ids
    if task.targets == "sequence":
        yield [int(target) - 1 for target in one.targets]  # plus one: 0 is padding


def spelled_control_tokens(tokenizer: Any, splits: Mapping[str, Sequence[Placed[Any]]]) -> list[str]:
    """A note on rows that contain a control token as text: it is not read as a control token there."""
    tokens = {json.dumps(token)[1:-1]: token for token in control_tokens(tokenizer)}
    pattern = re.compile("|".join(re.escape(spelled) for spelled in sorted(tokens, key=len, reverse=True)) or "(?!)")
    at: dict[str, list[str]] = {}
    for row in itertools.chain.from_iterable(splits[name] for name in SPLITS):
        if found := pattern.search(json.dumps(row.row.values, default=str)):
            at.setdefault(tokens[found[0]], []).append(row.row.where)
    named = [f"{token} ({places(wheres)})" for token, wheres in itertools.islice(at.items(), MOST_NAMES)]
    return [f"rows contain control tokens, which are read as text: {', '.join(named)}"] if named else []
