"""Models loaded and unloaded by hand: names of the registry, and release folders under the home."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from hpo.errors import HpoError
from hpo.paths import NAME_PATTERN
from hpo.quoting import clipped
from hpo.serving.loader import Loader
from hpo.serving.order import Place
from hpo.serving.refusal import Refusal, bad_request
from hpo.serving.resolver import Resolver, ResolverGone
from hpo.serving.served import Served
from trainers.runtime.bundle import ADAPTERS, Bundle


class ModelBody(BaseModel):
    """Of `/v1/models/load` and `/v1/models/unload`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: Annotated[str, Field(min_length=1, max_length=1000)]
    """NAME, NAME@ALIAS, NAME/VERSION or a folder under the home; requests use the same name. BUNDLE/ADAPTER is an
    adapter of a bundle that is served."""
    adapter_folder: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """Of an adapter that its bundle does not have: a folder under the home."""


class Admin:
    """Does what an administrator asks of a running server."""

    def __init__(self, loader: Loader, resolver: Resolver, home: Path) -> None:
        self.loader = loader
        self._resolver = resolver
        self._home = home.resolve()

    async def load(self, body: ModelBody) -> dict[str, Any]:
        """The entry of a model, when it answers and the version before is closed. Raises `Refusal`."""
        name = body.model
        if not name.isprintable():
            raise bad_request("model: expected printable characters", "model")
        bundle, adapter = self._adapter(name, body.adapter_folder)
        if bundle is not None:
            return await self._load_adapter(bundle, adapter, body.adapter_folder)
        if body.adapter_folder is not None:
            found = f"{clipped(ascii(name))} names no adapter; expected BUNDLE/ADAPTER, of a bundle that is served"
            raise bad_request(f"adapter_folder: {found}", "adapter_folder")
        place = self._folder(name) or await self._registered(name)
        try:
            served = await self.loader.load(name, place)
        except HpoError as error:
            raise bad_request(str(error), "model", "model_not_loadable") from error
        return served.entry()

    async def unload(self, name: str) -> dict[str, Any]:
        """OpenAI's answer to the deletion of a model, when its last request is answered; of an adapter at once.

        Raises `Refusal`.
        """
        if self.loader.shelf.get(name) is not None:
            await self.loader.unload(name)
        else:
            self.loader.shelf.find(name)
            bundle, _, adapter = name.rpartition("/")  # what is found and no release of its own is an adapter
            await self.loader.remove_adapter(bundle, adapter)
        return {"id": name, "object": "model", "deleted": True}

    def _adapter(self, name: str, given: str | None) -> tuple[Served | None, str]:
        """The bundle that is served and the name of an adapter of it; no bundle where the name means another thing.

        A number that is no adapter is a version of the bundle, where no folder was given for it.
        """
        before, _, adapter = name.rpartition("/")
        served = self.loader.shelf.get(before)
        if served is None or not isinstance(served.release, Bundle) or not NAME_PATTERN.fullmatch(adapter):
            return None, ""
        if given is None and adapter.isdigit() and served.adapter(adapter) is None and not _own(served, adapter):
            return None, ""
        return served, adapter

    async def _load_adapter(self, bundle: Served, adapter: str, given: str | None) -> dict[str, Any]:
        """From the folder that was given, or from the bundle's own."""
        folder = None if given is None else self._under_home(given)
        if not (folder.is_dir() if folder is not None else given is None and _own(bundle, adapter)):
            found = f"{clipped(ascii(given or adapter))} is not an adapter's folder under the home"
            raise Refusal(404, f"adapter_folder: {found}", "adapter_folder", "model_not_found")
        try:
            return (await self.loader.add_adapter(bundle.name, adapter, folder)).entry()
        except HpoError as error:
            raise bad_request(str(error), "model", "model_not_loadable") from error

    def _folder(self, name: str) -> Place | None:
        """A release folder under the home; None for anything else."""
        folder = self._under_home(name)
        return Place(folder) if folder is not None and (folder / "release.json").is_file() else None

    def _under_home(self, given: str) -> Path | None:
        """A path under the home; None for what lies outside, if only by a link, and for no path at all."""
        try:
            path = (self._home / given).resolve()
            path.exists()
        except (OSError, ValueError):  # too long, say
            return None
        return path if self._home in path.parents else None

    async def _registered(self, name: str) -> Place:
        try:
            found = (await self._resolver.places([name]))[name]
        except ResolverGone as error:
            raise Refusal(503, str(error), code="registry_unavailable") from error
        if isinstance(found, str):
            raise Refusal(404, clipped(found, 500), "model", "model_not_found")
        return found


def _own(bundle: Served, adapter: str) -> bool:
    """Whether a bundle's own folder has the files of an adapter."""
    return bundle.place is not None and (bundle.place.folder / ADAPTERS / adapter).is_dir()
