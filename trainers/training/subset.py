"""Which rows evaluations inside a trial use: the beginning of one fixed order, with every kind of row in its share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainers.data.tokens import Tokens

KINDS = 10
"""Where rows have no class, as many groups of like value or like length."""
SEED = 0
"""One order for all sweeps on the same data: their rows can be compared."""


def subset_order(tokens: Tokens) -> npt.NDArray[np.int64]:
    """All rows of a split in the order in which subsets take them, [rows].

    Every beginning of it has each kind of row (class; else a tenth by value or by length) as often as the whole split,
    but for one row. So larger subsets contain smaller ones, and all trials see the same rows.
    """
    count = len(tokens)
    kinds = _kinds(tokens)
    shuffled = np.random.default_rng(SEED).permutation(count)
    position = np.empty(count)
    for kind in np.unique(kinds):
        rows = shuffled[kinds[shuffled] == kind]
        position[rows] = (np.arange(len(rows)) + 0.5) / len(rows)  # evenly from the first place to the last
    return shuffled[np.argsort(position[shuffled], kind="stable")]


def _kinds(tokens: Tokens) -> npt.NDArray[np.int64]:
    """A number for each row's kind, [rows]."""
    if tokens.kind == "row":
        targets = [tokens.targets(row) for row in range(len(tokens))]
        first = np.array([target[0] if len(target) else 0 for target in targets])
        if first.dtype.kind == "i":
            return first.astype(np.int64)
        return _tenths(first)
    return _tenths(tokens.lengths)


def _tenths(values: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """Which tenth each value is in, from 0 for the smallest; equal values may be in two."""
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks * KINDS // max(1, len(values))
