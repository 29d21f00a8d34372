"""Models loaded, swapped and unloaded while the server answers: no request is answered by two versions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from hpo.errors import HpoError, UsageError
from hpo.quoting import clipped
from hpo.serving.changes import Changes
from hpo.serving.limits import Limits
from hpo.serving.order import Place
from hpo.serving.refusal import Refusal
from hpo.serving.served import Served, Shelf, load_served
from trainers.runtime.bundle import ADAPTERS
from trainers.runtime.card import ReleaseError

log = logging.getLogger("hpo.serving")


class Loader:
    """The only one that changes the shelf of a running server, one model after the other. Used in the event loop.

    A new version is loaded and answers once beside the old one. Then requests get the new one. The old one is closed
    when those that it had are answered, or have had their time.
    """

    def __init__(self, shelf: Shelf, limits: Limits) -> None:
        self.shelf = shelf
        self.changes = Changes()
        self._limits = limits
        self._turn = asyncio.Lock()
        self._closing: dict[asyncio.Task[None], str] = {}
        self._by_hand: dict[str, dict[str, Path | None]] = {}
        """What was changed of each bundle's adapters, for its next version: the folder of one that was loaded, None for
        one that was unloaded."""

    async def load_first(self, places: Mapping[str, Place]) -> None:
        """Load the models that the server begins with. Raises `HpoError`."""
        for name, place in places.items():
            async with self._turn:
                await self._put(name, place)

    async def load(self, name: str, place: Place) -> Served:
        """The model of that name from that place, when it answers and those before are closed. Raises `HpoError`."""
        async with self._turn:
            served = self.shelf.get(name)
            if served is None or served.place != place:
                served = await self._put(name, place)
                log.info("%s answers now", served)
        await self._closed(name)
        return served

    async def renew(self, served: Served, place: Place) -> None:
        """Let the version at `place` answer instead, where `served` still does. Raises `HpoError`."""
        async with self._turn:
            if self.shelf.get(served.name) is served:
                log.info("%s answers now", await self._put(served.name, place))

    async def unload(self, name: str) -> None:
        """Answer no more requests of that name; its model is closed afterwards."""
        async with self._turn:
            served = self.shelf.remove(name)
            self._by_hand.pop(name, None)
        self.changes.behind.discard(name)
        if served is not None:
            log.info("%s is unloaded", served)
            self._close(served)
        await self._closed(name)

    async def add_adapter(self, bundle: str, name: str, folder: Path | None) -> Served:
        """Let an adapter of a bundle answer, while its others do; one of that name is replaced.

        Without a `folder` it comes from the bundle's own. Raises `HpoError`, also for another one under the name of
        what a sweep has released.
        """
        async with self._turn:  # until now another version may have taken the bundle's place
            served = self.shelf.get(bundle)
            if served is None or served.place is None:
                raise UsageError(f"{bundle} is not served any more")
            if folder is not None and name in _of_a_sweep(served):
                raise UsageError(f"{bundle}/{clipped(name)} is an adapter of the release itself; choose another name")
            try:
                await asyncio.to_thread(
                    served.engine.add_adapter, name, folder or served.place.folder / ADAPTERS / name
                )
            except (OSError, ReleaseError) as error:
                self.changes.failures[bundle] += 1
                raise HpoError(f"{bundle}/{name}: {error}") from error
            changed = self._by_hand.setdefault(bundle, {})
            changed.pop(name, None)
            if folder is not None:
                changed[name] = folder
            found = self.shelf.find(f"{bundle}/{name}")
        log.info("%s/%s answers now", bundle, name)
        return found

    async def remove_adapter(self, bundle: str, name: str) -> None:
        """Answer no more requests to an adapter of a bundle; those that it has begun end with it.

        Raises `Refusal` for one that is not loaded.
        """
        async with self._turn:
            await asyncio.to_thread(self.shelf.find(f"{bundle}/{name}").engine.remove_adapter, name)
            self._by_hand.setdefault(bundle, {})[name] = None
        log.info("%s/%s is unloaded", bundle, name)

    def _repeated(self, new: Served) -> dict[str, Path | None]:
        """The changes by hand that hold for a new version too.

        What a sweep releases has adapters named after its trials, which are other trainings in each version.
        """
        changed, own = self._by_hand.get(new.name, {}), _of_a_sweep(new)
        return {name: folder for name, folder in changed.items() if not own or (folder is not None and name not in own)}

    def _loaded(self, name: str, place: Place) -> Served:
        """A model that answers; of a bundle with the adapters that the one before has by hand. Raises `HpoError`."""
        new = load_served(name, place.folder, self._limits, place.version)
        try:
            for adapter, folder in self._repeated(new).items():
                if folder is not None:
                    new.engine.add_adapter(adapter, folder)
                elif new.adapter(adapter) is not None:
                    new.engine.remove_adapter(adapter)
        except Exception as error:
            new.close()
            raise HpoError(
                f"{name}/{clipped(adapter)}, which was loaded by hand: {clipped(str(error), 500)}"
            ) from error
        return new

    async def _put(self, name: str, place: Place) -> Served:
        try:
            new = await asyncio.to_thread(self._loaded, name, place)
        except Exception as error:
            self.changes.failures[name] += 1
            if isinstance(error, HpoError):
                raise
            raise HpoError(f"{name}: {place.folder} cannot be loaded: {type(error).__name__}") from error
        old = self.shelf.put(new)
        self.changes.behind.discard(name)
        self._forget_unrepeated(new)
        if old is not None:
            self.changes.swaps[name] += 1
            self._close(old)
        return new

    def _forget_unrepeated(self, new: Served) -> None:
        """Say which changes by hand the version that answers now has not, and leave them out of later ones too."""
        repeated = self._repeated(new)
        for adapter in sorted(self._by_hand.get(new.name, {}).keys() - repeated.keys()):
            log.info("%s/%s is as %s has it: the change by hand was of the version before", new.name, adapter, new)
        if new.name in self._by_hand:
            self._by_hand[new.name] = repeated

    def _close(self, served: Served) -> None:
        """Close a model that gets no more requests, when those that have it are answered, or have had their time."""
        seconds = self._limits.replaced_seconds
        found = f"{served} was replaced or unloaded {seconds:g} seconds ago, before this answer was whole; ask again"

        async def close() -> None:
            late = await served.loans.end_after(seconds, Refusal(503, found, "model", "model_replaced"))
            self.changes.cut_off[served.name] += late
            await asyncio.to_thread(served.close)
            ended = f"; {late} took longer than {seconds:g} seconds and ended with an error" if late else ""
            log.info("%s has answered its last request and is closed%s", served, ended)

        task = asyncio.create_task(close())
        self._closing[task] = served.name  # also because the event loop itself does not keep tasks
        task.add_done_callback(self._closing.pop)

    async def _closed(self, name: str) -> None:
        """Wait until the models that answered to that name before are closed."""
        if tasks := [task for task, of in self._closing.items() if of == name]:
            await asyncio.wait(tasks)


def _of_a_sweep(served: Served) -> tuple[str, ...]:
    """The names of a bundle's own adapters, where a sweep has released it: one of them is the champion."""
    card = served.release.card
    return card.adapters if card.champion else ()
