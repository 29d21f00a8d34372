"""A server that follows the registry: where a name means another version now, that one answers."""

from __future__ import annotations

import asyncio
import logging
from typing import NoReturn

from hpo.errors import HpoError
from hpo.serving.loader import Loader
from hpo.serving.order import Place
from hpo.serving.resolver import Resolver, ResolverGone
from hpo.serving.served import Served

log = logging.getLogger("hpo.serving")
_LONGEST_PAUSE_S = 60.0


class Follower:
    """Asks the registry again and again about every model of the shelf that was named there."""

    def __init__(self, loader: Loader, resolver: Resolver, every: float) -> None:
        """`every`: seconds between two questions."""
        self._loader = loader
        self._resolver = resolver
        self._every = every
        self._failed: dict[str, Place] = {}
        """What could not be loaded, by name: it is tried again when the name has meant something else."""
        self._said: dict[str, str] = {}
        """Why a name means no version, by name: said once."""

    async def run(self) -> NoReturn:
        """Follow until the server ends."""
        pause = self._every
        while True:
            pause = self._every if await self.look() else min(2 * pause, _LONGEST_PAUSE_S)
            await asyncio.sleep(pause)

    async def look(self) -> bool:
        """Ask once, and load what is new; whether the registry answered."""
        followed = {served.name: served for served in self._loader.shelf if served.version is not None}
        try:
            meant = await self._resolver.places(list(followed)) if followed else {}
        except ResolverGone as error:
            log.warning("%s; the versions stay as they are until it answers again", error)
            return False
        for name, place in meant.items():
            if isinstance(place, str):
                self._say_once(name, place)
            else:
                self._said.pop(name, None)
                await self._follow(followed[name], place)
        return True

    def _say_once(self, name: str, problem: str) -> None:
        if self._said.get(name) != problem:
            self._said[name] = problem
            log.warning("%s; the server still answers %s with version %s", problem, name, self._version(name))

    def _version(self, name: str) -> str | None:
        served = self._loader.shelf.get(name)
        return None if served is None else served.version

    async def _follow(self, served: Served, place: Place) -> None:
        changes = self._loader.changes
        if place == served.place:
            self._failed.pop(served.name, None)
            changes.behind.discard(served.name)
        elif self._failed.get(served.name) != place:
            try:
                await self._loader.renew(served, place)
                self._failed.pop(served.name, None)
            except HpoError as error:
                self._failed[served.name] = place
                changes.behind.add(served.name)
                said = "%s; version %s is not served, version %s still answers"
                log.warning(said, error, place.version, served.version)
