"""What each pruning rule would have saved and cost: measured curves replayed in many orders, a few trials at a time.

`curves.json` has the macro-F1 of the 24 points of `pruning.py` at every tenth of 1,600 examples, none of them pruned. A
trial's seeds and curve are always the same, so what varies is who came when, and in a small sweep who was there at all.

With noise, rules see each value as some 320 validation rows would show it: off by `NOISE`, and by much the same at a
trial's next evaluation, for the rows are the same ones. What is lost is counted in true values.
"""

from __future__ import annotations

import heapq
import json
import math
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from hpo.config.objective import Objective
from hpo.pruning.base import Look, Never, Peers, Rule
from hpo.pruning.halving import Hyperband, SuccessiveHalving
from hpo.pruning.percentile import Median, Percentile
from hpo.pruning.second_chance import is_level, second_chance
from tests.bench.tables import Row

Error = Callable[[Look, Look], float | None]
CURVES: list[list[float]] = json.loads(Path(__file__).with_name("curves.json").read_text())
RULES: dict[str, Rule] = {
    "percentile 25": Percentile(),
    "percentile 10 from 0.1": Percentile(10.0, min_fraction=0.1),
    "median": Median(),
    "halving": SuccessiveHalving(),
    "halving from 0.1, tolerance 0": SuccessiveHalving(min_fraction=0.1, tolerance=0.0),
    "halving from 0.1 by 4": SuccessiveHalving(reduction_factor=4, min_fraction=0.1),
    "hyperband": Hyperband(),
}
ORDERS = 200
NOISE = 0.014
"""Standard deviation of a value; of a difference between two trials it is 0.02, as the rows of a real sweep say."""
STAYS = 0.6
"""Correlation of a trial's noise from one evaluation to the next."""
EVALUATIONS = 5
"""As many as a sweep has by default: every second one of the curves."""
TOLERANT: Error = lambda _own, _peer: None  # noqa: E731
"""As if no rows had been kept: rules fall back to their tolerance."""
STARTING = 0.15
"""What a trial takes to begin, of the time from one evaluation to the next."""


def rows() -> list[Row]:
    exact = [
        Row(f"{count} points, {jobs} at a time: {name}", "{:.2f}, {:.3f}".format(*replayed(rule, count, jobs)))
        for count, jobs in ((8, 2), (24, 2), (24, 8))
        for name, rule in RULES.items()
    ]
    noisy = [
        Row(f"{count} points, 2 at a time, with noise: {name}", "{:.2f}, {:.4f}".format(*found))
        for count in (8, 24)
        for name, found in (
            ("tolerance 0.02", replayed_with_noise(Percentile(), count, 2, error=TOLERANT)),
            *(
                (f"standard_errors {many:g}", replayed_with_noise(Percentile(standard_errors=many), count, 2))
                for many in (0.0, 1.0, 2.0, 2.5)
            ),
            ("standard_errors 2, chances", replayed_with_noise(Percentile(), count, 2, chances=True)),
            ("halving", replayed_with_noise(SuccessiveHalving(), count, 2)),
            ("halving, chances", replayed_with_noise(SuccessiveHalving(), count, 2, chances=True)),
        )
    ]
    return [*exact, *noisy]


def replayed(rule: Rule, count: int, jobs: int) -> tuple[float, float]:
    """Means over random sweeps of `count` of the points: (time, a share of that without pruning; F1 lost by it)."""
    shares, losses = [], []
    for seed in range(ORDERS):
        curves = random.Random(seed).sample(CURVES, count)
        whole_time, best = replay(curves, Never(), jobs)
        time, left = replay(curves, rule, jobs)
        shares.append(time / whole_time)
        losses.append(best - left)
    return statistics.mean(shares), statistics.mean(losses)


def replayed_with_noise(
    rule: Rule, count: int, jobs: int, error: Error = lambda _own, _peer: NOISE * math.sqrt(2), *,
    chances: bool = False,
) -> tuple[float, float]:  # fmt: skip
    """As `replayed`, where rules see noisy values; `error` is what they are told of a difference."""
    shares, losses = [], []
    for seed in range(ORDERS):
        rng = random.Random(seed)
        curves = [curve[1::2][:EVALUATIONS] for curve in rng.sample(CURVES, count)]
        seen = [_noisy(curve, rng) for curve in curves]
        whole_time, best = replay(curves, Never(), jobs)
        time, left = replay(curves, rule, jobs, seen, error, chances=chances)
        shares.append(time / whole_time)
        losses.append(best - left)
    return statistics.mean(shares), statistics.mean(losses)


def _noisy(curve: Sequence[float], rng: random.Random) -> list[float]:
    off, seen = rng.gauss(0, NOISE), []
    for value in curve:
        seen.append(value + off)
        off = STAYS * off + math.sqrt(1 - STAYS**2) * rng.gauss(0, NOISE)
    return seen


def replay(
    curves: Sequence[Sequence[float]], rule: Rule, jobs: int, seen: Sequence[Sequence[float]] | None = None,
    error: Error = TOLERANT, *, chances: bool = False,
) -> tuple[float, float]:  # fmt: skip
    """(when the last trial ends, in evaluations; the best value of those that came to their end). The first trial is
    the baseline, which is never pruned. `seen`: what the rule is shown in place of `curves`. `chances`: whether stopped
    trials go on where nothing new is left to try."""
    replayed = _Replay(curves, rule, seen or curves, error, chances=chances)
    under_way = [(STARTING + 1, number) for _, number in zip(range(jobs), replayed.queue, strict=False)]
    end = 0.0
    while under_way:
        end, number = heapq.heappop(under_way)
        if replayed.goes_on(number):
            heapq.heappush(under_way, (end + 1, number))
        elif (following := replayed.following()) is not None:
            heapq.heappush(under_way, (end + STARTING + 1, following))
    return end, max(max(curves[number]) for number in replayed.complete)


class _Replay:
    """A search over known curves: what a rule has seen of each, and who may go on."""

    def __init__(
        self, curves: Sequence[Sequence[float]], rule: Rule, seen: Sequence[Sequence[float]], error: Error,
        *, chances: bool,
    ) -> None:  # fmt: skip
        self.queue = iter(range(len(curves)))
        self.complete: list[int] = []
        self._rule, self._seen, self._noise = rule, seen, rule.noise if chances else None
        self._known: dict[int, list[tuple[float, float]]] = {}
        self._peers = Peers(self._known, Objective("f1_macro", "maximize"), lambda _number, _index: None, error)
        self._stopped: set[int] = set()
        self._gone_on: set[int] = set()

    def goes_on(self, number: int) -> bool:
        """Evaluate a trial once more; whether it goes on."""
        values, known = self._seen[number], self._known.setdefault(number, [])
        known.append(((len(known) + 1) / len(values), values[len(known)]))
        if len(known) == len(values):
            self.complete.append(number)
            return False
        if number in self._gone_on and self._noise:
            stops = not is_level(self._noise, self._peers, number, self._champion())
        else:
            stops = number > 0 and self._rule.should_prune(self._peers, number)
        if stops:
            self._stopped.add(number)
        return not stops

    def following(self) -> int | None:
        """The next trial: a new one, or one that was stopped."""
        number = next(self.queue, None)
        if number is None and self._noise and self.complete:
            number = second_chance(self._noise, self._peers, self._stopped, self._champion())
            if number is not None:
                self._stopped.discard(number)
                self._gone_on.add(number)
        return number

    def _champion(self) -> int:
        return max(self.complete, key=lambda number: max(value for _, value in self._known[number]))
