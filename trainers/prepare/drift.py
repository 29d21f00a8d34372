"""What differs between two groups of texts beyond chance: lengths, shares, words; each with its size and a p-value."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

K = TypeVar("K")
WORD = re.compile(r"\w+")
PRIOR_TEXTS = 10
"""How many texts the prior of a word's frequency is worth: rare words are drawn towards no difference by it."""
FEWEST_TEXTS = 5
"""A word in fewer texts of both groups together says nothing."""


class Difference(NamedTuple):
    """One thing in two groups. Pure chance gives a `p_value` this small, or a smaller one, in that share of cases."""

    name: str
    before: float
    after: float
    effect: float
    """How large the difference is, in the unit of the function that made it."""
    p_value: float


def longer(name: str, before: Sequence[float], after: Sequence[float]) -> Difference:
    """Numbers of two groups: their medians, and how often one of `after` is the larger of a pair, from 0 to 1.

    A half is no difference (Mann and Whitney 1947); of equal numbers each is the larger one half of the time.
    """
    import numpy as np
    from scipy.stats import mannwhitneyu  # late: it takes a second to import

    if len(set(before) | set(after)) < 2:
        return Difference(name, float(before[0]), float(after[0]), 0.5, 1.0)
    found = mannwhitneyu(after, before, method="asymptotic")
    larger = float(found.statistic) / (len(before) * len(after))
    return Difference(name, float(np.median(before)), float(np.median(after)), larger, float(found.pvalue))


def shares(before: Mapping[str, int], after: Mapping[str, int], totals: tuple[int, int]) -> list[Difference]:
    """How many of `totals` have each label, in two groups: the shares, and their difference (Fisher's exact test)."""
    from scipy.stats import fisher_exact

    differences = []
    for name in sorted(before.keys() | after.keys()):
        first, second = before.get(name, 0), after.get(name, 0)
        table = [[first, totals[0] - first], [second, totals[1] - second]]
        shares = first / totals[0], second / totals[1]
        differences.append(Difference(name, *shares, shares[1] - shares[0], float(fisher_exact(table).pvalue)))
    return differences


def words(before: Iterable[str], after: Iterable[str]) -> list[Difference]:
    """The share of texts that have each word, in two groups, and the log of the ratio of its odds.

    The ratio has an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008): the word's frequency in both groups
    together. A word counts once a text, so that one text that repeats it is no sign.
    """
    (first, texts), (second, others) = _texts_with(before), _texts_with(after)
    differences = []
    for word in sorted(first.keys() | second.keys()):
        both = first[word] + second[word]
        if both < FEWEST_TEXTS:
            continue
        prior = PRIOR_TEXTS * both / (texts + others)
        had = first[word] + prior, second[word] + prior
        had_not = texts + PRIOR_TEXTS - had[0], others + PRIOR_TEXTS - had[1]
        ratio = math.log(had[1] / had_not[1]) - math.log(had[0] / had_not[0])
        deviation = math.sqrt(sum(1 / count for count in (*had, *had_not)))
        p_value = math.erfc(abs(ratio) / deviation / math.sqrt(2))
        differences.append(Difference(word, first[word] / texts, second[word] / others, ratio, p_value))
    return differences


def beyond_chance(families: Mapping[K, Sequence[Difference]], alpha: float = 0.05) -> dict[K, list[Difference]]:
    """Of each family the differences that are no chance, with corrected p-values, the most certain ones first.

    Chance alone shows anything at all in fewer than `alpha` of the comparisons: each family gets its part of that
    (Bonferroni), and shares it out (Holm 1979).
    """
    asked = sum(1 for family in families.values() if family)
    return {name: _holm(family, asked, alpha) for name, family in families.items()}


def _holm(family: Sequence[Difference], families: int, alpha: float) -> list[Difference]:
    kept: list[Difference] = []
    corrected = 0.0
    for place, one in enumerate(sorted(family, key=lambda one: one.p_value)):
        corrected = max(corrected, min(1.0, one.p_value * families * (len(family) - place)))
        if corrected >= alpha:
            break
        kept.append(one._replace(p_value=corrected))
    return kept


def _texts_with(texts: Iterable[str]) -> tuple[Counter[str], int]:
    """In how many texts each word is, and how many there are."""
    counts: Counter[str] = Counter()
    number = 0
    for text in texts:
        counts.update(set(WORD.findall(text.casefold())))
        number += 1
    return counts, number
