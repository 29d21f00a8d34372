"""When to evaluate, when to stop early, which checkpoint to keep: alternatives replayed on measured curves with noise.

A trial is seen through a part of the validation rows: its curve (`curves.json`) with noise that is partly the same at
all of its evaluations, since they use the same rows. What is lost is lost of the curve's own value.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpo.config.objective import Objective
from hpo.pruning.base import Never, Peers, Rule
from hpo.pruning.percentile import Percentile
from tests.bench.rules import CURVES
from tests.bench.tables import Row

Array = npt.NDArray[np.float64]

NOISE, ALIKE = 0.014, 0.6
"""Standard deviation of a value's noise, and its correlation between evaluations of one trial."""
ERROR = NOISE * math.sqrt(2 * (1 - ALIKE))
"""Standard error of the difference of two evaluations of one trial."""
EVALUATION, STARTING = 0.04, 0.015
"""What one costs, and what a trial takes to begin, as shares of its training."""
JOBS = 2
REPLAYS = 1000
EQUAL = (2, 4, 6, 8, 10)
"""Tenths of the budget."""
SCHEDULES = {
    "equal shares": (EQUAL, 0.2),
    "0.1 0.2 0.4 0.7 1.0, looks from 0.1": ((1, 2, 4, 7, 10), 0.1),
    "0.1 0.2 0.4 0.7 1.0, looks from 0.2": ((1, 2, 4, 7, 10), 0.2),
    "0.1 0.2 0.4 0.8 1.0, looks from 0.1": ((1, 2, 4, 8, 10), 0.1),
    "0.2 0.3 0.5 0.7 1.0": ((2, 3, 5, 7, 10), 0.2),
    "0.2 0.5 1.0": ((2, 5, 10), 0.2),
}
"""Name -> when to evaluate, and from which share of the budget on trials are pruned."""
STOPPING: dict[str, Callable[[float, float], bool]] = {
    "no better": lambda value, best: value <= best,
    "worse by an error": lambda value, best: value < best - ERROR,
}
"""Name -> whether an evaluation counts towards the patience."""
KEEPING: dict[str, Callable[[Array], int]] = {
    "best": lambda seen: int(seen.argmax()),
    "latest within an error of it": lambda seen: int(_close(seen)[-1]),
    "earliest within an error of it": lambda seen: int(_close(seen)[0]),
}


@dataclass(frozen=True)
class Drawn:
    """Trials: their curves, and what evaluations show of them, both [trials, tenths]."""

    curves: Array
    seen: Array

    @staticmethod
    def draw(count: int, seed: int) -> Drawn:
        """So many of the measured curves, in random order."""
        curves = np.array(random.Random(seed).sample(CURVES, count))
        rng = np.random.default_rng(seed)
        noise = math.sqrt(ALIKE) * rng.normal(size=(count, 1)) + math.sqrt(1 - ALIKE) * rng.normal(size=curves.shape)
        return Drawn(curves, curves + NOISE * noise)


def rows() -> list[Row]:
    return [
        *(row for count in (8, 24) for row in _of_schedules(count)),
        *(row for schedule in (EQUAL, range(1, 11)) for row in _of_one_trial(schedule)),
    ]


def _of_schedules(count: int) -> list[Row]:
    """Means over sweeps: (time, a share of that without pruning; F1 lost by it)."""
    drawn = [Drawn.draw(count, seed) for seed in range(REPLAYS)]
    whole = [replay(each, EQUAL, Never()) for each in drawn]
    found = []
    for name, (schedule, first) in SCHEDULES.items():
        pruned = [replay(each, schedule, Percentile(min_fraction=first)) for each in drawn]
        time = np.mean([p[0] / w[0] for p, w in zip(pruned, whole, strict=True)])
        lost = np.mean([w[1] - p[1] for p, w in zip(pruned, whole, strict=True)])
        found.append(Row(f"{count} points: {name}", f"{time:.2f}, {lost:.4f}"))
    return found


def _of_one_trial(schedule: Sequence[int]) -> list[Row]:
    """Means over trials that nobody prunes: (share of the budget used; F1 of the checkpoint kept, below the best)."""
    at = [tenth - 1 for tenth in schedule]
    drawn = [Drawn.draw(len(CURVES), seed) for seed in range(REPLAYS)]
    trials = [pair for d in drawn for pair in zip(d.curves[:, at], d.seen[:, at], strict=True)]
    best = np.mean([curve.max() for curve, _ in trials])
    found = []
    for name, counts in STOPPING.items():
        ended = [(curve, seen[: stopped(seen, counts)]) for curve, seen in trials]
        used = np.mean([schedule[len(seen) - 1] / 10 for _, seen in ended])
        lost = best - np.mean([curve[seen.argmax()] for curve, seen in ended])
        found.append(Row(f"{len(at)} evaluations, patience 3, counts: {name}", f"{used:.2f}, {lost:.4f}"))
    for name, keeps in KEEPING.items():
        lost = best - np.mean([curve[keeps(seen)] for curve, seen in trials])
        found.append(Row(f"{len(at)} evaluations, kept: {name}", f"{lost:.4f}"))
    return found


def replay(drawn: Drawn, schedule: Sequence[int], rule: Rule) -> tuple[float, float]:
    """(when the last trial ends, in trainings; the curve's value where the trial that seems best seems best)."""
    known: dict[int, list[tuple[float, float]]] = {}
    queue = iter(range(len(drawn.curves)))
    spent = [0.0, *(tenth / 10 + EVALUATION * (index + 1) for index, tenth in enumerate(schedule))]
    under_way = [(STARTING + spent[1], number) for _, number in zip(range(JOBS), queue, strict=False)]
    end, champion = 0.0, (-math.inf, -math.inf)
    while under_way:
        end, number = heapq.heappop(under_way)
        known_of = known.setdefault(number, [])
        tenth = schedule[len(known_of)]
        known_of.append((tenth / 10, float(drawn.seen[number, tenth - 1])))
        peers = Peers(known, Objective("f1_macro", "maximize"), lambda _number, _index: None)
        if len(known_of) == len(schedule):
            seems, share = max((value, share) for share, value in known_of)
            champion = max(champion, (seems, float(drawn.curves[number, round(share * 10) - 1])))
        elif number == 0 or not rule.should_prune(peers, number):
            done = len(known_of)
            heapq.heappush(under_way, (end + spent[done + 1] - spent[done], number))
            continue
        if (following := next(queue, None)) is not None:
            heapq.heappush(under_way, (end + STARTING + spent[1], following))
    return end, champion[1]


def stopped(seen: Array, counts: Callable[[float, float], bool], patience: int = 3) -> int:
    """After how many evaluations early stopping ends a trial; those that neither count nor improve change nothing."""
    best, since = -math.inf, 0
    for index, value in enumerate(seen):
        if counts(value, best):
            since += 1
        elif value > best:
            since = 0
        best = max(best, float(value))
        if since == patience:
            return index + 1
    return len(seen)


def _close(seen: Array) -> npt.NDArray[np.intp]:
    return np.flatnonzero(seen >= seen.max() - ERROR)
