"""Which stopped trial goes on after all, once no new point is left to try.

A rule compares with the peers of that moment. Later ones may show that it was hard on a trial: the champion may have
been no better at the same share of the budget. A trial that goes on is compared with the champion alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from hpo.pruning.base import Look, Noise, Peers, best_look


def second_chance(noise: Noise, peers: Peers, stopped: Iterable[int], champion: int) -> int | None:
    """Of the trials that are level with the champion, the one that is least behind it; None when there is none."""
    level = [number for number in stopped if is_level(noise, peers, number, champion)]
    return min(level, key=lambda number: (_behind(peers, number, champion)[0], number), default=None)


def is_level(noise: Noise, peers: Peers, number: int, champion: int) -> bool:
    """Whether a trial's best value is behind the champion's at the same share of the budget by no more than noise."""
    distance, looks = _behind(peers, number, champion)
    is_number = not math.isnan(peers.curves[number][-1][1])
    return looks is not None and is_number and distance <= noise.slack(peers, *looks)


def _behind(peers: Peers, number: int, champion: int) -> tuple[float, tuple[Look, Look] | None]:
    """How far a trial's best value is behind the champion's at the same share, and the two evaluations; infinitely far
    where one has none."""
    share, _ = peers.curves[number][-1]
    own, best = best_look(peers, number, share), best_look(peers, champion, share)
    return (math.inf, None) if own is None or best is None else (own[0] - best[0], (own[1], best[1]))
