"""A point from Optuna's sampler that is allowed: others are never begun."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import optuna

from hpo.config.space import Point, SearchSpace
from hpo.study.samplers import suggest

Allowed = Callable[[Point], bool]
ASKED = 3
"""So often a sampler is asked for a point that is allowed, before one is drawn at random."""
MOST_DRAWN = 1000


def anything(_: Point) -> bool:
    """Every point is allowed."""
    return True


def asked(
    study: optuna.Study, space: SearchSpace, sampler_of: Callable[[int], optuna.samplers.BaseSampler], seed: int,
    allowed: Allowed,
) -> tuple[optuna.Trial, Point] | None:  # fmt: skip
    """Optuna's next trial and its point, by the sampler that `sampler_of` makes of a seed; None where none is allowed.

    A point that is not allowed is a failed trial to Optuna, from which no sampler learns. It never gets a number of
    ours, so that it is no trial to anybody else.
    """
    for seed_of_attempt in itertools.islice(itertools.count(seed, 7919), ASKED):
        study.sampler = sampler_of(seed_of_attempt % 2**32)
        trial = study.ask()
        point = suggest(trial, space)
        if allowed(point):
            return trial, point
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    chance = random.Random(seed)  # noqa: S311  # a repeatable draw, not a secret
    for _ in range(MOST_DRAWN):
        if allowed(point := space.point(lambda _, dimension: dimension.at(chance.random()))):
            study.enqueue_trial(point)
            trial = study.ask()
            return trial, suggest(trial, space)
    return None
