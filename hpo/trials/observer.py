"""Who hears what the scheduler did, and decides nothing: what keeps the timeline and the page of a sweep under way."""

from __future__ import annotations

from typing import Protocol

from hpo.results.timeline import Stint


class Observer(Protocol):
    """Hears of a sweep under way, in the process that runs it: it must be quick."""

    def attempted(self, stint: Stint) -> None:
        """An attempt at a training has ended."""

    def looked(self) -> None:
        """The scheduler has dealt with what happened; about once a second, and after each event."""


class Unobserved(Observer):
    """Nobody hears."""

    def attempted(self, stint: Stint) -> None: ...
    def looked(self) -> None: ...
