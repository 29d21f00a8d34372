"""Models loaded and unloaded by hand: names of the registry, and release folders under the home."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from hpo.errors import HpoError
from hpo.quoting import clipped
from hpo.serving.loader import Loader
from hpo.serving.order import Place
from hpo.serving.refusal import Refusal, bad_request
from hpo.serving.resolver import Resolver, ResolverGone


class ModelBody(BaseModel):
    """Of `/v1/models/load` and `/v1/models/unload`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: Annotated[str, Field(min_length=1, max_length=1000)]
    """NAME, NAME@ALIAS, NAME/VERSION or a folder under the home; requests use the same name."""


class Admin:
    """Does what an administrator asks of a running server."""

    def __init__(self, loader: Loader, resolver: Resolver, home: Path) -> None:
        self.loader = loader
        self._resolver = resolver
        self._home = home.resolve()

    async def load(self, name: str) -> dict[str, Any]:
        """The entry of a model, when it answers and the version before is closed. Raises `Refusal`."""
        if not name.isprintable():
            raise bad_request("model: expected printable characters", "model")
        place = self._folder(name) or await self._registered(name)
        try:
            served = await self.loader.load(name, place)
        except HpoError as error:
            raise bad_request(str(error), "model", "model_not_loadable") from error
        return served.entry()

    async def unload(self, name: str) -> dict[str, Any]:
        """OpenAI's answer to the deletion of a model, when its last request is answered. Raises `Refusal`."""
        self.loader.shelf.find(name)
        await self.loader.unload(name)
        return {"id": name, "object": "model", "deleted": True}

    def _folder(self, name: str) -> Place | None:
        """A release folder under the home; None for anything else, and for what lies outside, if only by a link."""
        try:
            folder = (self._home / name).resolve()
            is_ours = self._home in folder.parents and (folder / "release.json").is_file()
        except (OSError, ValueError):  # no path: too long, say
            return None
        return Place(folder) if is_ours else None

    async def _registered(self, name: str) -> Place:
        try:
            found = (await self._resolver.places([name]))[name]
        except ResolverGone as error:
            raise Refusal(503, str(error), code="registry_unavailable") from error
        if isinstance(found, str):
            raise Refusal(404, clipped(found, 500), "model", "model_not_found")
        return found
