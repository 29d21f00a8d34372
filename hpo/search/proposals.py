"""Which point comes next: what was lined up, a grid, a sequence, or the sampler; none twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from hpo.config.space import Point
from hpo.config.strategy import complete_point, is_countable, spread_point, untried
from hpo.config.sweep_config import SweepConfig
from hpo.results.records import TrialRecord, is_lost, void_trials
from hpo.study.asking import Allowed, anything
from hpo.study.study import Study

DUPLICATES_IN_A_ROW = 5
"""Equal points from the sampler before an untried one is drawn instead."""
MOST_DUPLICATES = 50
"""Equal points in a row after which a space that cannot be listed has no more."""


class Proposals:
    """Begins trials until the sweep has all it planned or the space has no more."""

    def __init__(
        self, config: SweepConfig, study: Study, warm: Sequence[Point] = (),
        allowed: Allowed = anything,
    ) -> None:  # fmt: skip
        """A point that is not `allowed` is left out, but the baseline, which all are compared with."""
        self._config = config
        self._study = study
        self._baseline = study.fingerprint_of(config.baseline())
        self._is_baseline_tried_again = False
        self._void = void_trials(study.records(), self._baseline, study.state.void)
        """Of earlier sessions."""
        if self._void != set(study.state.void):
            study.update_state(void=sorted(self._void))
        self._allowed = allowed
        self._lined_up = self._line_up(warm)
        self.exhausted = False
        """Whether every point of the space that is allowed has been tried."""

    def begin(self) -> tuple[int, Point] | None:
        """Begin the next trial: (number, point), or None when there is none."""
        return self._begin_planned() or self._begin_baseline_again()

    def _begin_planned(self) -> tuple[int, Point] | None:
        trained = sum(not record.reused_from for record in self._counted())
        if trained >= self._config.planned_trials() or self.exhausted:
            return None
        point = None
        if self._study.waiting() is None:
            point = self._next_point()
            if self.exhausted:
                return None
        begun = self._study.begin(point, self._allowed)
        self.exhausted = begun is None
        return begun

    def _begin_baseline_again(self) -> tuple[int, Point] | None:
        """The baseline once more, after all others, where it was lost and they were not: all are compared with it."""
        records = self._study.records()
        ended = [record.result for record in records if record.fingerprint == self._baseline]
        was_lost = bool(ended) and all(result is not None and is_lost(result) for result in ended)
        if self._is_baseline_tried_again or not was_lost or all(record.state != "complete" for record in records):
            return None
        self._is_baseline_tried_again = True
        return self._study.begin(self._config.baseline())

    def _counted(self) -> list[TrialRecord]:
        return [record for record in self._study.records() if record.number not in self._void]

    def _duplicates(self) -> int:
        """How many of the last trials in a row were equal to earlier ones; read from the study, so that a resumed
        sweep goes on alike."""
        newest_first = sorted(self._study.records(), key=lambda record: -record.number)
        return sum(1 for _ in itertools.takewhile(lambda record: record.is_duplicate, newest_first))

    def _line_up(self, warm: Sequence[Point]) -> Iterator[Point]:
        """Points to try before any sampler is asked: the baseline, the file's own, an earlier sweep's best, a grid."""
        space, defaults = self._config.space, self._config.defaults()
        yield self._config.baseline()
        given = (complete_point(given, space, defaults) for given in self._config.strategy.enqueue)
        yield from filter(self._allowed, itertools.chain(given, warm))
        if self._study.strategy.type == "grid":
            yield from filter(self._allowed, space.grid())

    def _next_point(self) -> Point | None:
        """A point, or None to let the sampler choose; sets `exhausted` where there is no more to try."""
        tried = {record.fingerprint for record in self._counted()}
        for point in self._lined_up:
            if self._study.fingerprint_of(point) not in tried:
                return point
        space, kind = self._config.space, self._study.strategy.type
        number = self._study.next_number
        if kind == "grid" or not space.dimensions:
            self.exhausted = True
        elif is_countable(space) and (self._duplicates() >= DUPLICATES_IN_A_ROW or space.most_points() <= len(tried)):
            point_left = untried(list(filter(self._allowed, space.grid())), tried, self._study.fingerprint_of, number)
            self.exhausted = point_left is None
            return point_left
        elif self._duplicates() >= MOST_DUPLICATES:
            self.exhausted = True
        elif kind == "qmc" and self._allowed(point := spread_point(space, number, self._config.seed)):
            return point
        return None
