"""The finalists as a race: who is still in, which trainings come next, and whether the champion is decided. Pure.

All contestants still in train with the next seed, best first; then comes a look. The race is over when one challenger
is left and its lead over the baseline is settled, or when every one still in has all seeds (the cap).

A challenger is dropped at a look when it is unlikely to be ahead of the leader at the cap: the chance of it
(`Gap.chance_of_falling_behind`) is below 1 - LEVEL, shared out over all looks and contestants (Bonferroni: whatever the
looks have in common, the race drops whom the cap would have chosen in fewer than 5 of 100 finals). It is also dropped
where the two are alike: that the cap would show a difference between them is less likely than `FUTILE`. Then the leader
stays although the other may be as good; nothing that is claimed would change.

The baseline rests when the lead of every challenger over it is shown, or futile. Later seeds may bring the last leader
below the mean that the baseline then had: the baseline is the champion. A lead counts as shown below 1 - LEVEL shared
out over looks and contestants too: so however the leader was picked and the moment of stopping chosen, chance alone
shows a lead in fewer than 5 of 100 finals. Races of models by paired looks: Maron & Moore 1994 (Hoeffding races),
Birattari et al. 2002 (F-Race).

A contestant of which a training failed is out, as if it had never been in: whom it had beaten is back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from hpo.results.gaps import Gap, Scores, gap
from hpo.results.outcome import LEVEL, Dropped, DropReason
from hpo.results.statistics import Spread, spread_of

FUTILE = 0.1
"""Below this chance of showing a difference, more seeds are not worth their time."""


@dataclass(frozen=True)
class Training:
    """One training on the two parts of the validation rows."""

    choosing: Scores
    certifying: Scores


@dataclass(frozen=True)
class Entrant:
    """A contestant with what is known of it so far."""

    trial: int
    is_baseline: bool
    trained: Mapping[int, Training | None]
    """Seed's index -> its training; None for one that failed."""
    searched: Training | None = None
    """The search's own training. It helps to tell how much seeds vary; no mean has it, for luck chose it too."""

    @property
    def is_out(self) -> bool:
        """Whether one of its trainings failed."""
        return None in self.trained.values()

    def counted(self, seeds: int) -> list[Training]:
        """Its trainings with the first so many seeds."""
        return [found for seed in range(seeds) if (found := self.trained[seed]) is not None]


@dataclass(frozen=True)
class Standing:
    """The race as it stands."""

    following: tuple[tuple[int, int], ...]
    """Trainings (trial, seed's index) that come next, best contestants first; empty when the race is over."""
    champion: int | None = None
    """Once the race is over; None then too where every contestant is out."""
    seeds: Mapping[int, int] = field(default_factory=dict)
    """Contestant -> how many of its seeds counted."""
    dropped: tuple[Dropped, ...] = ()

    @property
    def still_in(self) -> list[int]:
        """Contestants that no look has dropped and no failure put out."""
        gone = {dropped.trial for dropped in self.dropped}
        return [trial for trial in self.seeds if trial not in gone]

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train."""
        return not self.following


@dataclass(frozen=True)
class Race:
    """Contestants, best of the search first, over at most `cap` seeds."""

    entrants: Sequence[Entrant]
    cap: int
    sign: int
    """1 for a metric to be maximized, -1 for one to be minimized."""

    @property
    def comparisons(self) -> int:
        """Over how many comparisons the level is shared out: looks times contestants besides one."""
        return self.cap * max(1, len(self.entrants) - 1)

    def standing(self) -> Standing:
        """Replays all looks for which the trainings are there: the same results make the same decisions, in whatever
        order they came."""
        runners = _Field(self, [e for e in self.entrants if not e.is_out])
        for seed in range(self.cap):
            missing = tuple((e.trial, seed) for e in runners.still_in if seed not in e.trained)
            if missing or not runners.still_in:
                return Standing(missing, None, runners.seeds, tuple(runners.dropped))
            runners.count_seed()
            if seed + 1 < self.cap:
                runners.look()
            if runners.is_decided:
                break
        champion = runners.champion().trial
        return Standing((), champion, runners.seeds, tuple(d for d in runners.dropped if d.trial != champion))


class _Field:
    """Who is in while the looks are replayed."""

    def __init__(self, race: Race, healthy: list[Entrant]) -> None:
        self._race = race
        self._healthy = healthy
        self.still_in = list(healthy)
        self.dropped: list[Dropped] = []
        self.seeds = {e.trial: 0 for e in healthy}

    @property
    def is_decided(self) -> bool:
        """Whether one contestant is left."""
        return len(self.still_in) == 1

    def count_seed(self) -> None:
        """Everyone still in has one seed more."""
        for entrant in self.still_in:
            self.seeds[entrant.trial] += 1

    def leader(self) -> Entrant:
        """The best mean on the rows that choose; of equals the one that the search ranked higher, NaN last."""
        return self._best(self.still_in)

    def champion(self) -> Entrant:
        """The leader, but a baseline that rests where it has the better mean: later seeds may have brought the leader
        below what the baseline had when it was dropped, and then the default configuration stays."""
        resting = [e for e in self._healthy if e.is_baseline and e not in self.still_in]
        return self._best([self.leader(), *resting])

    def _best(self, entrants: Sequence[Entrant]) -> Entrant:
        means = {e.trial: self._race.sign * _mean(self._choosing(e)) for e in entrants}
        return max(entrants, key=lambda e: -np.inf if np.isnan(means[e.trial]) else means[e.trial])

    def look(self) -> None:
        """Drop who cannot win any more; let the baseline rest where nothing is open about it."""
        leader = self.leader()
        look = _Look(self._race, self._between(choosing=True), self._between(choosing=False))
        challengers = [e for e in self.still_in if not e.is_baseline]
        for entrant in challengers:
            if entrant is leader:
                continue
            lead = look.choosing(self._choosing(leader), self._choosing(entrant))
            if look.cannot_win(lead):
                self._drop(entrant, "behind")
            elif look.is_futile(lead):
                self._drop(entrant, "alike")
        baseline = next((e for e in self.still_in if e.is_baseline), None)
        if baseline is None or baseline is leader:
            return
        leads = [
            look.certifying(self._certifying(e), self._certifying(baseline)) for e in challengers if e in self.still_in
        ]
        if all(look.is_shown(lead) or look.is_futile(lead) for lead in leads):
            self._drop(baseline, "beaten" if all(map(look.is_shown, leads)) else "alike")

    def _drop(self, entrant: Entrant, why: DropReason) -> None:
        self.still_in.remove(entrant)
        self.dropped.append(Dropped(entrant.trial, self.seeds[entrant.trial], why))

    def _counted(self, entrant: Entrant) -> list[Training]:
        return entrant.counted(self.seeds[entrant.trial])

    def _choosing(self, entrant: Entrant) -> list[Scores]:
        return [training.choosing for training in self._counted(entrant)]

    def _certifying(self, entrant: Entrant) -> list[Scores]:
        return [training.certifying for training in self._counted(entrant)]

    def _between(self, *, choosing: bool) -> Spread:
        return between_seeds(self._healthy, self.seeds, choosing=choosing)


@dataclass(frozen=True)
class _Look:
    """What may be said at one look."""

    race: Race
    between_choosing: Spread
    between_certifying: Spread

    @cached_property
    def level(self) -> float:
        """Of one comparison."""
        return (1 - LEVEL) / self.race.comparisons

    def choosing(self, first: Sequence[Scores], second: Sequence[Scores]) -> Gap:
        """On the rows that choose."""
        return self._better(gap(first, second, self.between_choosing))

    def certifying(self, first: Sequence[Scores], second: Sequence[Scores]) -> Gap:
        """On the rows that certify."""
        return self._better(gap(first, second, self.between_certifying))

    def cannot_win(self, lead: Gap) -> bool:
        """Whether the one behind is hardly ever ahead at the cap."""
        return lead.chance_of_falling_behind(self.race.cap) < self.level

    def is_futile(self, lead: Gap) -> bool:
        """Whether the cap would hardly ever show a difference."""
        return lead.chance_of_being_shown(self.race.cap, self.level) < FUTILE

    def is_shown(self, lead: Gap) -> bool:
        """Whether the first is better beyond noise."""
        return lead.difference > 0 and lead.p_value() < self.level

    def _better(self, found: Gap) -> Gap:
        """The difference so that above 0 the first is better."""
        return replace(found, difference=self.race.sign * found.difference)


def between_seeds(entrants: Sequence[Entrant], seeds: Mapping[int, int], *, choosing: bool) -> Spread:
    """How trainings of one recipe vary: pooled over the counted seeds of all contestants and the search's trainings.

    The search's own training is one more seed of the same recipe. That it was picked for its value makes the estimate
    rather too large than too small.
    """
    values = []
    for entrant in entrants:
        trainings = [*([entrant.searched] if entrant.searched else []), *entrant.counted(seeds[entrant.trial])]
        values.append([(t.choosing if choosing else t.certifying).value for t in trainings])
    return spread_of([each for each in values if each])


def _mean(found: Sequence[Scores]) -> float:
    return float(np.mean([each.value for each in found])) if found else float("nan")
