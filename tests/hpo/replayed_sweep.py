"""Recorded sweeps, shown again as they ran: what a terminal says of their end.

A sweep has `trainings` as [trial, repeat, began, ended, how, share of its budget], in seconds since its begin;
`promotion_s` is what was expected of the promotion before it began.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from hpo.results.time_left import Ahead
from hpo.terminal import TerminalView
from tests.hpo.builders import trial_result

Sweep = dict[str, Any]


def seconds_left(sweep: Sweep, moments: Sequence[float]) -> list[float | None]:
    """What the view says after so many seconds, at each of the moments, from the first to the last."""
    shown, told, events = _Shown(sweep), [], _events(sweep)
    for moment in moments:
        while events and events[0][0] <= moment:
            shown.happens(*events.pop(0))
        told.append(shown.seconds_left(moment))
    return told


def errors(sweep: Sweep, first: float = 1 / 3, last: float = 1.0) -> list[float]:
    """Of the estimated end, as shares of the whole, at each fiftieth of it from `first` to `last`."""
    whole = sweep["ended"]
    moments = [whole * (first + step / 50) for step in range(51) if first + step / 50 < last]
    estimates = seconds_left(sweep, moments)
    return [abs(at + (left or 0.0) - whole) / whole for at, left in zip(moments, estimates, strict=True)]


def _events(sweep: Sweep) -> list[tuple[float, int, int]]:
    """(when, 1 for a begin and 0 for an end, which training), in their order; last of all the promotion."""
    found = []
    for number, (_, _, began, ended, _, _) in enumerate(sweep["trainings"]):
        found += [(began, 1, number), (ended, 0, number)]
    promotion = [] if sweep["promotion_began"] is None else [(sweep["promotion_began"], 2, -1)]
    return sorted([*found, *promotion])


class _Shown:
    """A view of a sweep that goes on."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._now = 0.0
        self._are_repeats, self._finished = False, 0
        self._running: set[int] = set()
        self._ended: set[int] = set()
        self._view = TerminalView(Console(file=io.StringIO()), clock=lambda: self._now)
        ahead = Ahead(sweep["contestants"], sweep["seeds"], sweep["promotion_s"])
        self._view.begin(sweep["planned"], 0, "f1", sweep["jobs"], ahead=ahead)

    def happens(self, at: float, kind: int, number: int) -> None:
        self._now = at
        if kind == 2:
            self._view.begin_promotion(self._sweep["promotion_s"])
            return
        trial, repeat, _, _, how, _ = self._sweep["trainings"][number]
        if repeat is not None:
            self._races(repeat)
        if kind == 1:
            self._running.add(number)
            if repeat is None:
                self._view.trial_started(number, {})
            else:
                self._view.repeat_started(number, f"{trial} with seed {repeat}", {})
            return
        self._running.remove(number)
        self._ended.add(number)
        if repeat is None:
            self._finished += 1
            finished = min(self._finished, self._sweep["planned"])
            self._view.trial_finished(number, trial_result(how), finished, is_best=False)
        else:
            self._view.repeat_finished(number, trial_result(how))

    def _races(self, seed: int) -> None:
        """What the view is told of the race: how many contestants there are, and their trainings without a result."""
        if not self._are_repeats:
            self._view.end()
            self._view.begin_repeats(self._sweep["contestants"], self._sweep["seeds"], "f1")
            self._are_repeats = True
        with_seed = {number for number, (_, repeat, *_) in enumerate(self._sweep["trainings"]) if repeat == seed}
        self._view.race_stands(seed + 1, len(with_seed), len(with_seed - self._ended))

    def seconds_left(self, moment: float) -> float | None:
        self._now = moment
        for number in self._running:
            _, _, began, ended, _, share = self._sweep["trainings"][number]
            self._view.step(number, (moment - began) / (ended - began) * share, None)
        return self._view.seconds_left()
