"""A champion that stays an adapter: its training, and the best other trials beside it, as parts of one bundle."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from hpo.config.promotion import Promote
from hpo.release.bundle import Part
from hpo.results.champion import Champion, as_champion, ranked
from hpo.trials.context import SweepContext
from trainers.protocol.requests import BundledTrial
from trainers.protocol.trial_spec import TrialSpec


def adapters_of(sweep: SweepContext, champion: Champion, wanted: Promote) -> list[Part]:
    """What becomes an adapter `trial-N` each: the champion, then the best other trials, as many as `wanted` has.

    Nothing where the champion is to be merged. Trials whose adapter is gone are passed over, which the view says.
    """
    if not wanted.is_adapters:
        return []
    return [_part(sweep, one) for one in (champion, *islice(_others(sweep, champion), wanted.top))]


def _others(sweep: SweepContext, champion: Champion) -> Iterator[Champion]:
    """Complete trials within the constraints that have their adapters, best first."""
    config = sweep.config
    for record in ranked(sweep.study.records(), config.objective, config.constraints):
        other = as_champion(record)
        if other is None or other.number == champion.number:
            continue
        if sweep.executor.fetch(sweep.champion_paths(other).adapter).exists():
            yield other
        else:
            sweep.view.say(f"trial {other.number} cannot become an adapter too: hpo gc freed its own")


def _part(sweep: SweepContext, one: Champion) -> Part:
    trial = BundledTrial(f"trial-{one.number}", champion_spec(sweep, one), sweep.inspection)
    return Part(trial, sweep.config.name, one.number, one.repeat, sweep.config.objective.metric, one.value)


def champion_spec(sweep: SweepContext, champion: Champion) -> TrialSpec:
    """The specification that a champion was trained with; a finalist's repeat has its own seed."""
    paths = sweep.champion_paths(champion)
    return sweep.specs.spec(champion.number, champion.params, paths, seed=sweep.config.seed_of(champion.repeat))
