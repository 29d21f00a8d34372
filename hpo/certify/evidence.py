"""How strongly rows say that one model is better than another: an e-value, by bets on paired differences. Pure.

H0: the new model is not better, so a row's difference (new minus old, from -1 to 1) has a mean of at most 0. Somebody
bets on each row in turn that it is above 0, at odds which are fair under H0: a stake of s makes 1 + s * d of 1, which
under H0 is at most 1 on the mean. So the wealth after all rows is an e-value: its mean is at most 1, and it reaches
1 / a with a probability of at most a (Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting,
2024). That holds for rows drawn independently, whatever the distribution of their differences, for any number of rows,
and for any stakes from 0 to 1 that do not look ahead. Two bettors share the money:

- one aims at the wealth that would certify, with the rows that are left (STaR-bets: Voracek & Orabona, 2025), and bets
  no more once it is there. It finds twice as many gains as the other one alone, and says no more than that;
- the other spreads its money over all stakes and keeps each as it is. Its wealth grows with the evidence without end.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hpo.results.gaps import FEWEST_ROWS

Array = npt.NDArray[np.float64]

STAKES: Array = np.arange(1, 50) / 50
"""From 0.02 to 0.98."""
AIMED = 0.75
"""The share of the money that aims."""
MOST = 1e300
"""JSON has no infinity; a smaller e-value is a weaker claim, and so a valid one."""
CLAIMED = 2.0
"""Standard errors."""


def e_value(differences: Array, choosing: Array, target: float) -> float:
    """The e-value of H0 on `differences`, [rows], from -1 to 1.

    `choosing` are those of the rows that chose the model: other rows, so they may say how large differences are.
    `target` is the e-value that would certify; it may not depend on these rows. Raises `ValueError` for a difference
    that is no number, or beyond its bounds.
    """
    if not np.all(np.abs(differences) <= 1):  # false for NaN too
        raise ValueError("a difference is not a number from -1 to 1")
    mean_square = float(np.mean(np.square(choosing))) if np.any(choosing) else 1.0
    aimed = _aimed(differences, mean_square, math.log(target / AIMED))
    return min(AIMED * aimed + (1 - AIMED) * _spread(differences), MOST)


def is_ahead(differences: Array) -> bool:
    """Whether the mean is above 0 by more than two standard errors: whether a claim has a fair chance.

    Other rows have to show about four. Where the rows that choose show less than two, or are only a few, they almost
    never do, and a claim that fails makes the next ones harder.
    """
    if len(differences) < FEWEST_ROWS or not (mean := float(np.mean(differences))) > 0:
        return False
    return mean > CLAIMED * float(np.std(differences, ddof=1)) / math.sqrt(len(differences))


def _aimed(differences: Array, mean_square: float, goal: float) -> float:
    """The wealth of who bets, on each row, what reaches exp(goal) if the rows that are left go just well enough.

    A stake of s gains about s * sum - s^2 / 2 * sum of squares in the logarithm: with the smallest sum that can reach
    the goal, the best stake is the root of 2 * (what is missing) / (mean square * rows left). Rows come in an order of
    their own, because files may be sorted.
    """
    wealth = 0.0
    order = np.random.default_rng(0).permutation(len(differences))
    for left, difference in zip(range(len(differences), 0, -1), differences[order].tolist(), strict=True):
        if wealth >= goal:
            break
        if difference:
            stake = min(math.sqrt(2 * (goal - wealth) / (mean_square * left)), float(STAKES[-1]))
            wealth += math.log1p(stake * difference)
    return math.exp(wealth)


def _spread(differences: Array) -> float:
    """The mean wealth of all stakes, each kept from the first row to the last."""
    values, counts = np.unique(differences, return_counts=True)  # three values, where answers are right or wrong
    wealths = counts @ np.log1p(np.outer(values, STAKES))
    largest = float(wealths.max())
    return math.exp(min(largest, math.log(MOST))) * float(np.exp(wealths - largest).mean())
