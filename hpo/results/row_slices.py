"""On which validation rows a model is wrong: by label, by length and by word, beside the baseline. Pure.

A word is shown where rows with it are wrong more often than rows without it, beyond chance: Fisher's exact test (1922),
one-sided, over all words that were looked at (Bonferroni).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainers.metrics.table import ROW_RESULTS, Rows

FEWEST_ROWS = 20
"""Of a slice by length or by word: fewer say next to nothing."""
MOST_WORDS = 10
"""That are shown."""
ALPHA = 0.05
"""The chance that any word is shown where none has to do with what is wrong."""
_PARTS = 4
"""Slices by length, each with about as many rows."""
_WORD = re.compile(r"[^\W\d_]{2,}")
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RowSlice:
    """Some of the rows, and the mean of `RowFindings.measure` on them."""

    kind: str
    """label, length or word."""
    name: str
    rows: int
    champion: float
    baseline: float | None
    """None where the baseline's rows are not there, or the champion is the baseline."""
    p_value: float | None = None
    """Of a word: how often chance alone shows one that is wrong so often, over all words."""


def measure_of(task: str) -> str:
    """What slices are measured in: the share of right rows where a row has one label, else the mean loss."""
    return "share of right rows" if task == "text-classification" else "loss"


def row_values(task: str, rows: Rows) -> Values:
    """That measure of each row, shape [rows]."""
    if task == "text-classification":
        return np.asarray(rows[:, 0] == rows[:, 1], dtype=np.float64)
    return ROW_RESULTS[task].losses(rows)


def by_label(task: str, champion: Rows, baseline: Rows | None, labels: Sequence[str]) -> list[RowSlice]:
    """A slice for each true label that has rows, the worst first; none for a task without one label a row."""
    if task != "text-classification":
        return []
    groups = [(name, champion[:, 0] == number) for number, name in enumerate(labels)]
    found = _slices("label", groups, row_values(task, champion), _values(task, baseline), 1)
    return sorted(found, key=lambda s: s.champion)


def by_length(task: str, champion: Rows, baseline: Rows | None, inputs: Sequence[Mapping[str, Any]]) -> list[RowSlice]:
    """About four slices with as many rows each, the shortest first; equal lengths are in one slice."""
    lengths, unit = _lengths(inputs)
    edges = [-1, *sorted({int(edge) for edge in np.quantile(lengths, np.arange(1, _PARTS + 1) / _PARTS)})]
    groups = []
    for low, high in itertools.pairwise(edges):
        chosen = (lengths > low) & (lengths <= high)
        if chosen.any():
            groups.append((_range(int(lengths[chosen].min()), high, unit), chosen))
    return _slices("length", groups, row_values(task, champion), _values(task, baseline), FEWEST_ROWS)


def by_word(
    task: str, champion: Rows, baseline: Rows | None, inputs: Sequence[Mapping[str, Any]]
) -> tuple[list[RowSlice], int]:
    """Words on whose rows the champion is wrong more often than chance explains, and how many were looked at.

    Looked at is each word of at least `FEWEST_ROWS` and at most half of the rows; none where rows have no text or not
    one label each.
    """
    rows_of = _rows_by_word(inputs) if task == "text-classification" else {}
    looked_at = {word: np.array(rows) for word, rows in rows_of.items() if FEWEST_ROWS <= len(rows) <= len(inputs) / 2}
    if not looked_at:
        return [], 0
    from scipy.stats import hypergeom  # late: it takes a moment that other commands need not wait for

    values, beside = row_values(task, champion), _values(task, baseline)
    wrong, found = 1 - values, []
    sizes = np.array([len(rows) for rows in looked_at.values()])
    errors = np.array([wrong[rows].sum() for rows in looked_at.values()])
    chances = np.minimum(1.0, len(looked_at) * hypergeom.sf(errors - 1, len(wrong), wrong.sum(), sizes))
    for (word, rows), chance in zip(looked_at.items(), chances, strict=True):
        if chance < ALPHA:
            other = None if beside is None else float(beside[rows].mean())
            found.append(RowSlice("word", word, len(rows), float(values[rows].mean()), other, float(chance)))
    return sorted(found, key=lambda s: (s.p_value or 0.0, s.name))[:MOST_WORDS], len(looked_at)


def _slices(
    kind: str, groups: Sequence[tuple[str, npt.NDArray[np.bool_]]], champion: Values, baseline: Values | None,
    fewest: int,
) -> list[RowSlice]:  # fmt: skip
    return [
        RowSlice(kind, name, int(chosen.sum()), float(champion[chosen].mean()),
                 None if baseline is None else float(baseline[chosen].mean()))
        for name, chosen in groups if chosen.sum() >= fewest
    ]  # fmt: skip


def _values(task: str, rows: Rows | None) -> Values | None:
    return None if rows is None else row_values(task, rows)


def _lengths(inputs: Sequence[Mapping[str, Any]]) -> tuple[npt.NDArray[np.int64], str]:
    """Of each row, and what is counted: tokens where rows are kept as tokens, else words."""
    if all("input_ids" in row for row in inputs):
        return np.array([len(row["input_ids"]) for row in inputs]), "tokens"
    return np.array([len(_text(row).split()) for row in inputs]), "words"


def _range(low: int, high: int, unit: str) -> str:
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def _rows_by_word(inputs: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    rows_of: dict[str, list[int]] = {}
    for number, row in enumerate(inputs):
        for word in sorted(set(_WORD.findall(_text(row).casefold()))):
            rows_of.setdefault(word, []).append(number)
    return rows_of


def _text(row: Mapping[str, Any]) -> str:
    """All texts of a row: pairs have two."""
    return " ".join(value for value in row.values() if isinstance(value, str))
