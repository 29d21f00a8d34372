"""The models of a server, by the names that requests use."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from starlette.types import Scope

from hpo.errors import HpoError, UsageError
from hpo.lock import hold_shared
from hpo.quoting import clipped, listed
from hpo.serving.answer_loop import AnswerLoop
from hpo.serving.judge import Judge
from hpo.serving.lending import Loans, borrow
from hpo.serving.limits import Limits
from hpo.serving.order import Place
from hpo.serving.refusal import Refusal, bad_request
from hpo.serving.step_loop import StepLoop
from hpo.serving.turn_loop import TurnLoop
from hpo.serving.worker import answer_example
from trainers.runtime.bundle import Bundle
from trainers.runtime.card import GENERATIVE, ReleaseError
from trainers.runtime.encoder import Encoder
from trainers.runtime.release import Release
from trainers.runtime.rewrite import Rewriter
from trainers.runtime.write import Writer


@dataclass(frozen=True, eq=False)
class Served:
    """A loaded release with its worker. Until it is closed, `hpo delete` and `hpo gc` leave its files alone."""

    name: str
    release: Release
    engine: Judge | AnswerLoop
    hashes: Mapping[str, str]
    """Of what it was made of, by the names in its manifest."""
    place: Place | None = None
    """None for a release that was not loaded from a folder."""
    held: ExitStack = field(default_factory=ExitStack)
    """What it holds until it is closed."""
    loans: Loans = field(default_factory=Loans)
    bundle: str = ""
    """The name of the bundle whose adapter it is."""
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def version(self) -> str | None:
        """Its version in the registry; None for one that was not named there."""
        return None if self.place is None else self.place.version

    def entry(self) -> dict[str, Any]:
        """Its entry in `/v1/models`."""
        card = self.release.card
        return {
            "id": self.name, "object": "model", "created": self.created, "owned_by": "hpo",
            "root": self.bundle or self.name,
            "parent": self.hashes.get("base"), "hash": self.hashes.get("release"), "version": self.version,
            "task": card.task, "variant": card.variant, "labels": list(card.labels), "columns": list(card.columns),
            "max_model_len": card.max_length,
            "writes": isinstance(self.release, Writer | Rewriter), "has_chat_template": card.chat_template is not None,
        }  # fmt: skip

    def __str__(self) -> str:
        version = "" if self.version is None else f", version {self.version}"
        return f"{clipped(self.name)}{version} ({self.release.card.task}, {self.release.card.variant})"

    def models(self) -> Iterator[Self]:
        """What requests may name: itself, or of a bundle each adapter as `NAME/ADAPTER`, all with one worker.

        The champion of a bundle that has one is named as the bundle itself.
        """
        if not isinstance(self.release, Bundle):
            yield self
            return
        for adapter, release in self.release.releases().items():
            yield self._with(adapter, release)

    def adapter(self, name: str = "") -> Self | None:
        """The adapter of that name, of a bundle that has it now; without a name its champion."""
        name = name or self.release.card.champion
        release = self.release.releases().get(name) if isinstance(self.release, Bundle) else None
        return None if release is None else self._with(name, release)

    def _with(self, adapter: str, release: Release) -> Self:
        hashes = {**self.hashes, "release": release.card.adapter_hash}
        name = self.name if adapter == self.release.card.champion else f"{self.name}/{adapter}"
        return replace(self, name=name, bundle=self.name, release=release, hashes=hashes)

    def close(self) -> None:
        """End its worker, and let others delete its files."""
        self.engine.close()
        self.held.close()


def load_served(name: str, folder: Path, limits: Limits, version: str | None = None) -> Served:
    """Load a release folder, let it answer once, and start its worker.

    Raises `HpoError` for one that is damaged, or that cannot answer.
    """
    with ExitStack() as stack:
        try:
            stack.callback(os.close, hold_shared(folder / "release.json"))
            release = Release.load(folder, is_served=True)
            answer_example(release, folder)
        except (OSError, ReleaseError) as error:
            raise HpoError(f"{name}: {error}") from error
        hashes = _hashes(folder / "manifest.json")
        engine = engine_for(name, release, limits)
        return Served(name, release, engine, hashes, Place(folder, version), stack.pop_all())


def _hashes(manifest: Path) -> dict[str, str]:
    """The hashes of what a release was made of; none for a folder that no sweep has released."""
    if not manifest.is_file():
        return {}
    try:
        return dict(json.loads(manifest.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HpoError(f"{manifest} is damaged: {type(error).__name__}; copy the release again") from error


def engine_for(name: str, release: Release, limits: Limits) -> Judge | AnswerLoop:
    """The worker of a release. Raises `UsageError` for a kind that is not served."""
    if isinstance(release, Bundle):
        return StepLoop(release, limits) if release.card.task in GENERATIVE else Judge(release, limits)
    if isinstance(release, Writer):
        return StepLoop(release, limits)
    if isinstance(release, Rewriter):
        return TurnLoop(release, limits)
    if isinstance(release, Encoder):
        return Judge(release, limits)
    raise UsageError(f"{name}: models of {release.card.task} are not served")


class Shelf:
    """All releases of a server, and the names of those that it still loads for the first time."""

    def __init__(self, models: Sequence[Served] = (), expected: Iterable[str] = ()) -> None:
        self._models = {served.name: served for served in models}
        self._expected = dict.fromkeys(expected)

    def __iter__(self) -> Iterator[Served]:
        return iter(tuple(self._models.values()))

    @property
    def is_loading(self) -> bool:
        """Whether a model is loaded for the first time."""
        return bool(self._expected)

    @property
    def is_ready(self) -> bool:
        """Whether every model is loaded, and every worker runs."""
        return not self._expected and all(served.engine.is_alive for served in self)

    def get(self, name: str) -> Served | None:
        """The model of that name, where there is one."""
        return self._models.get(name)

    def put(self, served: Served) -> Served | None:
        """Answer requests of its name with a model from now on; returns the one that did until now."""
        old = self._models.get(served.name)
        self._models[served.name] = served
        self._expected.pop(served.name, None)
        return old

    def remove(self, name: str) -> Served | None:
        """Answer no more requests of that name; returns the model that did until now."""
        return self._models.pop(name, None)

    def close(self) -> None:
        """Close all models."""
        for served in self:
            served.close()

    def models(self) -> dict[str, Served]:
        """What requests may name."""
        return {model.name: model for served in self for model in served.models()}

    def find(self, name: str | None) -> Served:
        """The model of that name, or without a name the only one, of a bundle its champion. Raises `Refusal`."""
        if name is None and len(self._models) == 1 and not self._expected:
            (only,) = self
            name = only.name if only.release.card.champion else None
        if name is not None and (found := self._named(name)) is not None:
            return found
        names = [*self.models(), *self._expected]
        if not names:
            raise Refusal(404, "no model is loaded", "model", "model_not_found")
        if name is None and len(names) == 1:
            return self.find(names[0])
        if name is None:
            raise bad_request(f"model is missing; expected one of {listed(names)}", "model")
        if not self._expected.keys().isdisjoint((name, name.rpartition("/")[0])):  # an adapter of one, perhaps
            raise Refusal(503, f"{clipped(name)} is being loaded; try again later", "model", "model_loading")
        problem = f"unknown model {clipped(ascii(name))}; expected one of {listed(names)}"
        raise Refusal(404, problem, "model", "model_not_found")

    def _named(self, name: str) -> Served | None:
        """The model of exactly that name. Of every request: other models are left alone."""
        served = self._models.get(name)
        if served is not None and (found := served.adapter() if isinstance(served.release, Bundle) else served):
            return found
        before, _, adapter = name.rpartition("/")
        bundle = self._models.get(before)
        return None if bundle is None or not adapter else bundle.adapter(adapter)

    def lend(self, name: str | None, scope: Scope) -> Served:
        """The model for a request, which has it until its answer has been sent. Raises `Refusal`."""
        served = self.find(name)
        borrow(scope, served.loans)
        return served
