"""How long a sweep still takes, from how long its trainings have taken so far. Pure.

A training that has ended counts as long as it took, whoever stopped it: so the mean has pruned and early stopped ones
in the share in which they come. What cannot be known before a race of finalists begins is how long it goes on, not from
the search's standings either (tests/bench/search.md): a third of the seeds it may have is what races take in the
median. Each look then tells who is still in, and beyond that median one more seed of theirs is what mostly follows.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

ENOUGH = 0.3
"""Of a training that must be done before its pace is known."""
_RACE_SHARE = 1 / 3


@dataclass(frozen=True)
class Ahead:
    """What comes after a search, as far as it is known when the search begins."""

    contestants: int = 0
    """Finalists that are trained again, the baseline among them; once they race, those that are still in."""
    seeds: int = 0
    """That each of them may be trained with."""
    promotion_s: float = 0.0
    """About how long the release takes; 0 without one."""

    @property
    def trainings(self) -> int:
        """The most that there may be."""
        return self.contestants * self.seeds

    def rounds(self, jobs: int) -> int:
        """The most rounds of trainings side by side: a seed begins when all contestants have the one before it."""
        return self.seeds * math.ceil(self.contestants / jobs)

    @property
    def likely_seeds(self) -> int:
        """As many as the race takes in the median."""
        return max(1, round(self.seeds * _RACE_SHARE)) if self.trainings else 0


NOTHING = Ahead()


@dataclass(frozen=True)
class UnderWay:
    """A training that has not ended."""

    seconds: float
    """That it has taken, earlier sessions included."""
    fraction: float
    """Of its budget, 0 to 1."""

    def left(self, whole_s: float) -> float:
        """Seconds to its end by its own pace; before that is known, by how long others take."""
        if self.fraction > 0:
            return self.seconds * (1 / self.fraction - 1)
        return max(0.0, whole_s - self.seconds)


@dataclass
class TimeLeft:
    """The estimate of one session of a sweep. All times are in seconds."""

    jobs: int = 1
    ahead: Ahead = NOTHING
    _took: list[float] = field(default_factory=list)
    """Of every training that has ended."""
    _took_complete: list[float] = field(default_factory=list)
    """Of those that neither pruner nor failure stopped: as long as a finalist's."""
    _seed: int = 1
    """Of the finalists' trainings under way; the first one is 1."""
    _without_result: int = 0
    """Finalists' trainings with that seed."""

    def begin_race(self, contestants: int, seeds: int) -> None:
        """Note that the search is over, and who races."""
        self.ahead = replace(self.ahead, contestants=contestants, seeds=seeds)
        self.race_stands(1, contestants, contestants)

    def race_stands(self, seed: int, contestants: int, trainings: int) -> int:
        """Note that so many contestants are still in, and that so many of their trainings with this seed have no
        result yet. Returns how many trainings the race may still take."""
        self.ahead = replace(self.ahead, contestants=contestants)
        self._seed, self._without_result = seed, trainings
        return trainings + contestants * (self.ahead.seeds - seed)

    def ended(self, seconds: float, *, is_complete: bool) -> None:
        """Note a training that has ended."""
        self._without_result -= 1
        self._took.append(seconds)
        if is_complete:
            self._took_complete.append(seconds)

    def in_search(self, waiting: int, running: Sequence[UnderWay], most_s: float | None = None) -> float | None:
        """Until the sweep's end, with so many trials not begun; the search ends after `most_s` at the latest.

        None before a pace is known.
        """
        one_s, whole_s = _mean(self._took) or _whole(running), _mean(self._took_complete) or _whole(running)
        one_s = whole_s if one_s is None else one_s
        whole_s = one_s if whole_s is None else whole_s
        if one_s is None or whole_s is None:
            return None
        share = len(self._took_complete) / len(self._took) if self._took else 1.0
        left = [share * training.left(whole_s) for training in running]  # a pruner may stop it at any moment
        search_s = _until_all_end(left, waiting, one_s, self.jobs)
        search_s = search_s if most_s is None else min(search_s, max(0.0, most_s))
        return search_s + self.ahead.likely_seeds * self._seed_s(whole_s) + self.ahead.promotion_s

    def in_repeats(self, running: Sequence[UnderWay]) -> float | None:
        """Until the sweep's end, while finalists race. None before a pace is known."""
        whole_s = _mean(self._took_complete) or _whole(running)
        if whole_s is None or not self.ahead.contestants:
            return None
        waiting = max(0, self._without_result - len(running))
        this_seed_s = _until_all_end([training.left(whole_s) for training in running], waiting, whole_s, self.jobs)
        more = max(0, self.ahead.likely_seeds - self._seed)
        return this_seed_s + more * self._seed_s(whole_s) + self.ahead.promotion_s

    def _seed_s(self, whole_s: float) -> float:
        """All contestants with one seed."""
        return math.ceil(self.ahead.contestants / self.jobs) * whole_s


def _mean(took: Sequence[float]) -> float | None:
    return sum(took) / len(took) if took else None


def _whole(running: Sequence[UnderWay]) -> float | None:
    """How long a training takes by the pace of those under way; None before that is known."""
    done = sum(training.fraction for training in running)
    return sum(training.seconds for training in running if training.fraction > 0) / done if done >= ENOUGH else None


def _until_all_end(left: Sequence[float], waiting: int, each_s: float, jobs: int) -> float:
    """When the last one ends, where each that waits begins as soon as a worker is free."""
    lanes = max(jobs, len(left))  # several trials may share a worker
    free = sorted([*left, *[0.0] * (lanes - len(left))])
    rounds = max(0, waiting // lanes - 1)  # of equal trainings, each worker has its share; only the last ones differ
    heapq.heapify(free := [at + rounds * each_s for at in free])
    for _ in range(waiting - rounds * lanes):
        heapq.heapreplace(free, free[0] + each_s)
    return max(free)
