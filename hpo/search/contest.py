"""Which trainings the finalists may take: the best trials and the baseline, each with every seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from hpo.config.finalists import Claim
from hpo.config.space import Point
from hpo.config.sweep_config import SweepConfig
from hpo.results.champion import ranked
from hpo.results.race import Race
from hpo.results.records import TrialRecord
from hpo.results.time_left import NOTHING, Ahead
from hpo.search.scoreboard import Results, Scoreboard
from hpo.trials.context import SweepContext
from trainers.protocol.codec import fingerprint
from trainers.protocol.trial_spec import TrialSpec

FIRST_NUMBER = 1_000_000
"""Repeats are numbered from here, where no trial's number is."""


@dataclass(frozen=True)
class Planned:
    """One training of a contestant with a seed of its own, to come."""

    trial: int
    repeat: int
    spec: TrialSpec


def finals_planned(config: SweepConfig) -> Ahead:
    """What the finalists may take, the baseline's trainings included.

    Adapters take none: one whose files are gone is trained again, which no plan can know.
    """
    if config.finalists is None or config.finalists.claim == "adapter":
        return NOTHING
    most = config.space.most_points() if config.strategy.warm_start else config.most_trials()
    return Ahead(int(min(config.finalists.top + 1, most)), config.finalists.seeds)


def repeats_planned(config: SweepConfig) -> int:
    """The most trainings that the finalists may take."""
    return finals_planned(config).trainings


def contestants_of(
    sweep: SweepContext, top: int, rank: Callable[[TrialRecord], float] | None = None
) -> list[TrialRecord]:
    """The best trials, best first, and the baseline, which has to be beaten; none that exceeds a constraint. `rank`:
    another order, lowest first."""
    best = ranked(sweep.study.records(), sweep.config.objective, sweep.config.constraints)
    if rank is not None:
        best.sort(key=rank)
    baseline = sweep.study.state.baseline
    chosen = [r for r in best if r.number != baseline][:top]
    return chosen + [r for r in best if r.number == baseline]


def repeats_of(sweep: SweepContext, contestants: Sequence[TrialRecord], seeds: int) -> list[Planned]:
    """Every contestant with every seed; none of them the search's own, on which the contestants were chosen."""
    repeats: list[Planned] = []
    for contestant in contestants:
        for index in range(seeds):
            paths = sweep.paths.repeat(contestant.number, index)
            spec = sweep.specs.spec(
                FIRST_NUMBER + len(repeats), contestant.params, paths, threads=sweep.slots.threads,
                seed=sweep.config.seed_of(index),
            )  # fmt: skip
            repeats.append(Planned(contestant.number, index, spec))
    return repeats


@dataclass(frozen=True)
class Contest:
    """Contestants, what is claimed of the best of them, and all trainings that this may take."""

    contestants: Sequence[TrialRecord]
    claim: Claim
    repeats: Sequence[Planned]
    seeds: int

    @cached_property
    def fingerprint(self) -> str:
        """Of all repeats and the claim: other contestants, seeds or another claim make another outcome."""
        repeats = [[r.trial, r.spec.fingerprint()] for r in self.repeats]
        return fingerprint(repeats if self.claim == "recipe" else [self.claim, repeats])

    def params_of(self, trial: int) -> Point:
        """The searched settings of a contestant."""
        return next(contestant.params for contestant in self.contestants if contestant.number == trial)

    def race(self, board: Scoreboard, results: Results) -> Race:
        """The race as far as `results` go."""
        if self.claim == "adapter":
            return board.adapters(self.contestants, results)
        return board.recipes(self.contestants, results, self.seeds)


def contest_of(
    sweep: SweepContext, top: int, seeds: int, claim: Claim, rank: Callable[[TrialRecord], float] | None = None
) -> Contest:
    """The contest that a file asks for. An adapter whose files are gone is trained again with one seed."""
    contestants = contestants_of(sweep, top, rank)
    seeds = seeds if claim == "recipe" else 1
    return Contest(contestants, claim, repeats_of(sweep, contestants, seeds), seeds)
