"""Whether a classifier can tell two groups of texts apart: if their words are alike, it cannot.

A logistic regression on hashed words learns which group a text is of, and is asked about texts that it has not learned
(a classifier two-sample test, Lopez-Paz and Oquab 2017). 0.5 is as good as guessing.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainers.prepare.drift import WORD

MOST_TEXTS = 1000
"""Of each group; more would change the answer little and take longer."""
FEATURES = 1 << 12
FOLDS = 2
_STRENGTH = 1.0
"""Of the ridge that keeps weights small, in rows."""
_Z95 = 1.96

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Separation:
    """How often a text of the second group gets the higher score of a pair (the area under the ROC curve)."""

    auc: float
    low: float
    high: float
    """Bounds (95 %)."""
    p_value: float
    """Of two groups of the same kind of texts, in this share of cases the area is as large or larger by chance."""


def separation(before: Sequence[str], after: Sequence[str]) -> Separation:
    """Learn and ask in turns over folds, so that every text is asked about once. Needs `FOLDS` texts of each group.

    The same texts give the same answer, in whatever order they come.
    """
    groups = [_some(group) for group in (before, after)]
    rows = _features([text for group in groups for text in group])
    is_after = np.repeat([0.0, 1.0], [len(group) for group in groups])
    fold = np.concatenate([np.arange(len(group)) % FOLDS for group in groups])
    asked = [_asked(rows, is_after, fold == number) for number in range(FOLDS)]
    auc, chance, error = np.array(asked).mean(axis=0)
    # The variance of the mean is that of one fold: folds agree, for what is odd in one half is learned for the other.
    deviation = math.sqrt(chance)
    p_value = 0.5 * math.erfc((auc - 0.5) / deviation / math.sqrt(2)) if deviation else 1.0
    margin = _Z95 * math.sqrt(error)
    return Separation(float(auc), float(max(0.0, auc - margin)), float(min(1.0, auc + margin)), float(p_value))


def _asked(rows: Any, is_after: Numbers, is_asked: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """The area on some texts, and its variances as `_area` gives them, after learning from the others."""
    weights = _learn(rows[~is_asked], is_after[~is_asked])
    return _area(rows[is_asked] @ weights, is_after[is_asked] > 0)


def _some(texts: Sequence[str]) -> list[str]:
    """At most `MOST_TEXTS` of them, in the order of their hashes, which has nothing to do with what they say."""
    by_hash = sorted(texts, key=lambda text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return by_hash[:MOST_TEXTS]


def _features(texts: Sequence[str]) -> Any:
    """Which words a text has, hashed, as a sparse matrix [texts, features + 1] of rows of length 1, and a constant."""
    from scipy.sparse import csr_matrix  # late: it takes a second to import

    columns: list[int] = []
    values: list[float] = []
    ends = [0]
    for text in texts:
        words = {zlib.crc32(word.encode("utf-8", "surrogatepass")) % FEATURES for word in WORD.findall(text.casefold())}
        columns += [*sorted(words), FEATURES]
        values += [1 / math.sqrt(len(words) or 1)] * len(words) + [1.0]
        ends.append(len(columns))
    return csr_matrix((values, columns, ends), shape=(len(texts), FEATURES + 1))


def _learn(rows: Any, is_after: Numbers) -> Numbers:
    """Weights of a logistic regression, [features + 1]; the constant is no part of the ridge."""
    from scipy.optimize import minimize

    ridge = np.full(rows.shape[1], _STRENGTH)
    ridge[-1] = 0.0

    def loss(weights: Numbers) -> tuple[float, Numbers]:
        scores = rows @ weights
        expected = 0.5 * (1 + np.tanh(scores / 2))
        value = np.logaddexp(0, scores).sum() - is_after @ scores + 0.5 * float(ridge @ weights**2)
        return float(value), np.asarray(rows.T @ (expected - is_after) + ridge * weights)

    found = minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 50})
    return np.asarray(found.x)


def _area(scores: Numbers, is_after: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """The area, its variance where the groups are alike (Mann and Whitney 1947, with ties), and its variance as it is
    (Hanley and McNeil 1982)."""
    from scipy.stats import rankdata

    second, first = int(is_after.sum()), int((~is_after).sum())
    ranks = rankdata(scores)
    area = (float(ranks[is_after].sum()) - second * (second + 1) / 2) / (first * second)
    _, ties = np.unique(scores, return_counts=True)
    total = first + second
    tied = float((ties**3 - ties).sum()) / (total * (total - 1))
    chance = (total + 1 - tied) / (12 * first * second)
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    as_is = area * (1 - area) + (second - 1) * (one - area**2) + (first - 1) * (two - area**2)
    return area, chance, max(0.0, as_is) / (first * second)
