"""The finalists' race replayed on simulated finals: how many trainings it takes, and how often it errs.

A final: 20 points were searched with one seed, the best three and the baseline are contestants, each with up to three
seeds. A row's result is its own hardness, what the recipe makes of it (the same with every seed), and chance. All
seeds of all contestants are drawn, so that the race can be compared with the final that trains them all.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpo.results.gaps import GROUPS, Scores, gap
from hpo.results.race import Entrant, Race, Standing, Training, between_seeds
from tests.bench.tables import Row

Array = npt.NDArray[np.float64]

POINTS, TOP, SEEDS = 20, 3, 3
HARDNESS, OF_RECIPE, OF_TRAINING = 0.3, 0.2, 0.2
"""Standard deviations over rows."""
FINALS = 1000


@dataclass(frozen=True)
class Setting:
    """Where finals come from. `gain`: how much better than the baseline the best point is, truly; `spread`: by how much
    the other points' true values vary below it."""

    gain: float
    spread: float
    between_seeds: float = 0.008
    rows: int = 500


SETTINGS = {
    "nobody differs": Setting(0.0, 0.0),
    "nobody differs, seeds vary much": Setting(0.0, 0.0, 0.03),
    "all far above the baseline, alike": Setting(0.15, 0.0),
    "clear: one point is best": Setting(0.15, 0.06),
    "hard to tell": Setting(0.04, 0.02),
}


@dataclass(frozen=True)
class Replayed:
    """One final, raced and run to its end."""

    rounds: tuple[int, ...]
    """How many contestants were trained with the first seed, with the second, and so on."""
    cap: int
    claims: bool
    """The race ends with `better than the baseline`."""
    claims_at_cap: bool
    truth: float
    """How much better than the baseline the race's champion is, truly."""
    lost: float
    """By how much the race's champion is truly worse than that of the whole final."""
    is_other: bool
    """The race's champion is another one than the whole final's, although that one had been dropped as one that could
    not win any more."""
    luck: float
    """The champion's lead as certified, above its true one."""

    @property
    def trainings(self) -> int:
        """Of the race."""
        return sum(self.rounds)


def replay(setting: Setting, seed: int) -> Replayed:
    """One final."""
    rng = np.random.default_rng([seed, int(setting.gain * 1000), int(setting.between_seeds * 1000)])
    truths = np.full(POINTS, setting.gain) - np.abs(rng.normal(0, 1, POINTS)) * setting.spread
    truths[0], truths[rng.integers(1, POINTS)] = 0.0, setting.gain
    rows = rng.normal(0, HARDNESS, setting.rows) + rng.normal(0, OF_RECIPE, (POINTS, setting.rows))
    searched = _trained(rng, setting, truths, rows)
    chooses = rng.random(setting.rows) < 0.5
    order = 1 + np.argsort(-searched[1:, chooses].mean(axis=1))
    contestants = [*(int(point) for point in order[:TOP]), 0]
    repeats = [_trained(rng, setting, truths[contestants], rows[contestants]) for _ in range(SEEDS)]
    everything = [
        Entrant(
            point, point == 0,
            {s: _training(results[position], chooses) for s, results in enumerate(repeats)},
            _training(searched[point], chooses),
        )
        for position, point in enumerate(contestants)
    ]  # fmt: skip
    race = Race(everything, SEEDS, 1)
    standing = race.standing()
    at_cap = max(everything, key=lambda e: np.mean([t.choosing.value for t in e.counted(SEEDS)])).trial
    whole = Standing((), at_cap, dict.fromkeys(contestants, SEEDS))
    (claims, lead), (claims_at_cap, _) = certified(race, standing), certified(race, whole)
    champion = standing.champion or 0
    behind = {dropped.trial for dropped in standing.dropped if dropped.why == "behind"}
    return Replayed(
        rounds_of(standing), len(contestants) * SEEDS, claims, claims_at_cap, float(truths[champion]),
        float(truths[at_cap] - truths[champion]), at_cap in behind, lead - float(truths[champion]),
    )  # fmt: skip


def rounds_of(standing: Standing) -> tuple[int, ...]:
    """As `Replayed` has them."""
    seeds = standing.seeds.values()
    return tuple(sum(count > seed for count in seeds) for seed in range(max(seeds)))


def certified(race: Race, standing: Standing) -> tuple[bool, float]:
    """(better than the baseline is claimed, the lead that is shown)."""
    by_trial = {e.trial: e for e in race.entrants}
    champion, baseline = by_trial[standing.champion or 0], by_trial[0]
    if champion is baseline:
        return False, 0.0
    first, second = ([t.certifying for t in e.counted(standing.seeds[e.trial])] for e in (champion, baseline))
    between = between_seeds(race.entrants, standing.seeds, choosing=False)
    found = gap(first, second, between).comparison(race.comparisons)
    return found.is_beyond_noise and found.difference > 0, found.difference


def _trained(rng: np.random.Generator, setting: Setting, truths: Array, rows: Array) -> Array:
    """Every point trained with one more seed: results, shape [points, rows]."""
    of_seed = rng.normal(0, setting.between_seeds, (len(truths), 1))
    return truths[:, None] + rows + of_seed + rng.normal(0, OF_TRAINING, rows.shape)


def _training(results: Array, chooses: npt.NDArray[np.bool_]) -> Training:
    return Training(scores_of_mean(results[chooses]), scores_of_mean(results[~chooses]))


def scores_of_mean(results: Array) -> Scores:
    """As `hpo.results.gaps.scores` gives them for the mean, without computing it 40 times."""
    group = np.arange(len(results)) % GROUPS
    sums, counts = np.bincount(group, results, GROUPS), np.bincount(group, minlength=GROUPS)
    return Scores(float(results.mean()), (results.sum() - sums) / (len(results) - counts), counts)


def replayed(setting: Setting, finals: int = FINALS) -> list[Replayed]:
    """So many finals of one setting."""
    return [replay(setting, seed) for seed in range(finals)]


def share(flags: Sequence[bool]) -> float:
    """Of those that are true."""
    return sum(flags) / len(flags)


def rows() -> list[Row]:
    found: list[Row] = []
    for name, setting in SETTINGS.items():
        finals = replayed(setting)
        trainings = [final.trainings / final.cap for final in finals]
        bound = "0.50" if setting == SETTINGS["clear: one point is best"] else ""
        wrongly, dropped = [f.claims and f.truth <= 0 for f in finals], [f.is_other for f in finals]
        claims = share([f.claims for f in finals]), share([f.claims_at_cap for f in finals])
        found += [
            Row(name, ""),
            Row("  trainings, a share of the cap: median", f"{statistics.median(trainings):.2f}", bound),
            Row("  mean", f"{statistics.mean(trainings):.2f}"),
            Row("  'better than the baseline', wrongly", _of(finals, wrongly), "0.05"),
            Row("  whom the whole final chose was dropped as behind", _of(finals, dropped), "0.05"),
            Row("  'better than the baseline': race; whole final", "{:.3f}; {:.3f}".format(*claims)),
            Row("  the champion's value below the whole final's", f"{statistics.mean(f.lost for f in finals):.4f}"),
            Row("  its certified lead above its true one", f"{statistics.mean(f.luck for f in finals):+.4f}"),
        ]
    return found


def _of(finals: Sequence[Replayed], flags: Sequence[bool]) -> str:
    return f"{sum(flags)} of {len(finals):,}"
