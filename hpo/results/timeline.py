"""When each worker trained what, and how long it waited. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stint:
    """One attempt at one training, on one worker. Times are seconds since 1970."""

    trial: int
    repeat: int | None
    """Which of a finalist's repeats; None for the search's own training."""
    slot: int
    """The worker, from 0."""
    workers: int
    """How many worked side by side, as far as was known then."""
    phase: float
    """When its search, or its race of finalists, began: a session has one of each."""
    began: float
    ended: float
    how: str
    """complete, pruned or failed; or the cause that ended an attempt, which may have been followed by another one."""


@dataclass(frozen=True)
class Phase:
    """A search or a race of finalists, as one session ran it."""

    began: float
    ended: float
    """When the last attempt in it ended."""
    workers: int
    """The most that there were: machines may have joined meanwhile."""
    trained: float
    """Seconds that its workers trained, all together."""

    @property
    def waited(self) -> float:
        """Seconds that its workers had nothing to train, all together."""
        return max(0.0, self.workers * (self.ended - self.began) - self.trained)


@dataclass(frozen=True)
class Worker:
    """One worker over all phases."""

    slot: int
    attempts: int
    trained: float
    """Seconds."""
    waited: float
    """Seconds, in the phases of which it was a worker."""


def phases(stints: Sequence[Stint]) -> list[Phase]:
    """In the order in which they began. What lies between two of them was no worker's time."""
    found: dict[float, list[Stint]] = {}
    for stint in stints:
        found.setdefault(stint.phase, []).append(stint)
    return [_phase(began, of) for began, of in sorted(found.items())]


def _phase(began: float, of: Sequence[Stint]) -> Phase:
    trained = sum(_busy(lane) for lane in _lanes(of).values())
    return Phase(began, max(s.ended for s in of), max(s.workers for s in of), trained)


def workers(stints: Sequence[Stint]) -> list[Worker]:
    """All that there were in some phase, also one that got nothing to train."""
    every, lanes, found = phases(stints), _lanes(stints), []
    for slot in range(max((phase.workers for phase in every), default=0)):
        own = lanes.get(slot, [])
        there = sum(phase.ended - phase.began for phase in every if slot < phase.workers)
        trained = _busy(own)
        found.append(Worker(slot, len(own), trained, max(0.0, there - trained)))
    return found


def idle_share(stints: Sequence[Stint]) -> float | None:
    """The share of all workers' time in which they waited; None where nothing was recorded."""
    every = phases(stints)
    whole = sum(phase.trained + phase.waited for phase in every)
    return sum(phase.waited for phase in every) / whole if whole > 0 else None


def _lanes(stints: Iterable[Stint]) -> dict[int, list[Stint]]:
    lanes: dict[int, list[Stint]] = {}
    for stint in stints:
        lanes.setdefault(stint.slot, []).append(stint)
    return lanes


def _busy(lane: Iterable[Stint]) -> float:
    """Seconds in which at least one of a worker's attempts ran: several trials may share a process."""
    busy, until = 0.0, float("-inf")
    for stint in sorted(lane, key=lambda s: s.began):
        busy += max(0.0, stint.ended - max(stint.began, until))
        until = max(until, stint.ended)
    return busy
