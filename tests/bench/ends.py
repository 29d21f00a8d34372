"""When a sweep ends, as a terminal says it, on simulated sweeps: a search, the finalists' race, the release.

Trainings take 75 s on the mean, and two run at a time, as in the demo. Half of those after the third are pruned. Races
are those of `race.py`; what a release takes is known to a tenth. An error is of the estimated end, as a share of what
the whole sweep took, or of what was left of it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.bench import race
from tests.bench.race import SEEDS, TOP, Setting, replay
from tests.bench.tables import Row
from tests.hpo.replayed_sweep import seconds_left

TRAINING_S, RELEASE_S, JOBS = 75.0, 30.0, 2
UNLIKE = 0.1
"""Standard deviation of the logarithm of each duration."""
PRUNED, AT = 0.5, (0.2, 0.2, 0.4)
"""The share of trials that are pruned, and after which shares of their budget."""
FINALS = {
    **race.SETTINGS,
    "0.04 better, seeds vary much": Setting(0.04, 0.02, 0.03),
    "0.15 better, seeds vary much": Setting(0.15, 0.06, 0.03),
}
SWEEPS = 150
"""Of each kind."""
WITHIN = 0.2
FIRST_THIRD = 1 / 3


@dataclass(frozen=True)
class Said:
    """What was said of one sweep's end at each fiftieth of it, after its first third."""

    rounds: int
    of_whole: Sequence[float]
    """Errors, as shares of the whole sweep: above 0, it ended later than said."""
    of_left: Sequence[float]
    """As shares of what was left."""


def rows() -> Iterator[Row]:
    for trials in (8, 20):
        for name, setting in FINALS.items():
            yield Row(f"{trials} trials; {name}", "")
            yield from _rows([said_of(sweep(setting, trials, seed)) for seed in range(SWEEPS)])


def _rows(said: Sequence[Said]) -> list[Row]:
    moments, left = (np.abs(np.concatenate(each)) for each in ([s.of_whole for s in said], [s.of_left for s in said]))
    always = [max(map(abs, s.of_whole)) <= WITHIN for s in said]
    worst = np.quantile(moments, 0.9)
    per_round = [
        f"{np.mean(found):.2f}" if (found := [a for a, s in zip(always, said, strict=True) if s.rounds == n]) else "-"
        for n in range(1, SEEDS + 1)
    ]
    return [
        Row("  moments within 20 %: of the whole; of what was left", f"{_share(moments):.2f}; {_share(left):.2f}"),
        Row("  error, of the whole: mean; of the worst tenth, at least", f"{moments.mean():.3f}; {worst:.2f}"),
        Row("  sweeps that are always within 20 % of the whole", f"{np.mean(always):.2f}"),
        Row("    with a race of 1, 2, 3 rounds", ", ".join(per_round)),
    ]


def _share(errors: race.Array) -> float:
    return float(np.mean(errors <= WITHIN))


def said_of(made: dict[str, Any]) -> Said:
    """What the view says as the sweep goes on."""
    whole = made["ended"]
    moments = [whole * step / 50 for step in range(50) if step / 50 >= FIRST_THIRD]
    estimates = seconds_left(made, moments)
    late = [whole - at - (left or 0.0) for at, left in zip(moments, estimates, strict=True)]
    rounds = 1 + max(repeat for _, repeat, *_ in made["trainings"] if repeat is not None)
    left = [error / (whole - at) for at, error in zip(moments, late, strict=True)]
    return Said(rounds, [error / whole for error in late], left)


def sweep(setting: Setting, trials: int, seed: int, jobs: int = JOBS) -> dict[str, Any]:
    """A sweep as `tests/hpo/replayed_sweep.py` shows it again."""
    rng = np.random.default_rng([seed, trials])

    def lasting(seconds: float) -> float:
        return seconds * float(np.exp(rng.normal(0, UNLIKE)))

    shares = [float(rng.choice(AT)) if n > 2 and rng.random() < PRUNED else 1.0 for n in range(trials)]
    trainings, now = _side_by_side([(n, None, lasting(TRAINING_S) * s, s) for n, s in enumerate(shares)], jobs, 0.0)
    for repeat, contestants in enumerate(replay(setting, seed).rounds):
        wanted = [(n, repeat, lasting(TRAINING_S), 1.0) for n in range(contestants)]
        more, now = _side_by_side(wanted, jobs, now)
        trainings += more
    return {
        "jobs": jobs, "planned": trials, "contestants": TOP + 1, "seeds": SEEDS, "promotion_s": RELEASE_S,
        "promotion_began": now, "ended": now + lasting(RELEASE_S), "trainings": trainings,
    }  # fmt: skip


def _side_by_side(
    wanted: Sequence[tuple[int, int | None, float, float]], jobs: int, since: float
) -> tuple[list[list[Any]], float]:  # fmt: skip
    """Trainings as a record has them, each begun as soon as there is room; when the last one ends."""
    free, made = [since] * jobs, []
    for trial, repeat, seconds, share in wanted:
        began = heapq.heappop(free)
        heapq.heappush(free, began + seconds)
        made.append([trial, repeat, began, began + seconds, "complete" if share == 1 else "pruned", share])
    return made, max(free)
