"""The models of a server, by the names that requests use."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo.errors import HpoError, UsageError
from hpo.lock import hold_shared
from hpo.quoting import clipped, listed
from hpo.serving.answer_loop import AnswerLoop
from hpo.serving.judge import Judge
from hpo.serving.limits import Limits
from hpo.serving.refusal import Refusal, bad_request
from hpo.serving.step_loop import StepLoop
from hpo.serving.turn_loop import TurnLoop
from trainers.runtime.card import ReleaseError
from trainers.runtime.encoder import Encoder
from trainers.runtime.release import Release
from trainers.runtime.rewrite import Rewriter
from trainers.runtime.write import Writer


@dataclass(frozen=True)
class Served:
    """A loaded release with its worker."""

    name: str
    release: Release
    engine: Judge | AnswerLoop
    hashes: Mapping[str, str]
    """Of what it was made of, by the names in its manifest."""
    created: int = field(default_factory=lambda: int(time.time()))

    def entry(self) -> dict[str, Any]:
        """Its entry in `/v1/models`."""
        card = self.release.card
        return {
            "id": self.name, "object": "model", "created": self.created, "owned_by": "hpo", "root": self.name,
            "parent": self.hashes.get("base"), "hash": self.hashes.get("release"),
            "task": card.task, "variant": card.variant, "labels": list(card.labels), "columns": list(card.columns),
            "max_model_len": card.max_length,
            "writes": isinstance(self.release, Writer | Rewriter), "has_chat_template": card.chat_template is not None,
        }  # fmt: skip


def load_served(name: str, folder: Path, limits: Limits) -> Served:
    """Load a release folder and start its worker. Raises `HpoError` for one that is damaged."""
    try:
        hold_shared(folder / "release.json")  # until this process ends: `hpo delete` and `hpo gc` leave it alone
        release = Release.load(folder)
    except (OSError, ReleaseError) as error:
        raise HpoError(f"{name}: {error}") from error
    hashes = _hashes(folder / "manifest.json")
    return Served(name, release, engine_for(name, release, limits), hashes)


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
    if isinstance(release, Writer):
        return StepLoop(release, limits)
    if isinstance(release, Rewriter):
        return TurnLoop(release, limits)
    if isinstance(release, Encoder):
        return Judge(release, limits)
    raise UsageError(f"{name}: models of {release.card.task} are not served")


class Shelf:
    """All models of a server."""

    def __init__(self, models: Sequence[Served]) -> None:
        self._models = {served.name: served for served in models}

    def __iter__(self) -> Iterator[Served]:
        return iter(self._models.values())

    @property
    def is_ready(self) -> bool:
        """Whether every worker runs."""
        return all(served.engine.is_alive for served in self)

    def close(self) -> None:
        """End all workers."""
        for served in self:
            served.engine.close()

    def find(self, name: str | None) -> Served:
        """The model of that name, or without a name the only one. Raises `Refusal`."""
        if name is None and len(self._models) == 1:
            return next(iter(self))
        if name is None:
            raise bad_request(f"model is missing; expected one of {listed(self._models)}", "model")
        if name not in self._models:
            found = f"unknown model {clipped(ascii(name))}; expected one of {listed(self._models)}"
            raise Refusal(404, found, "model", "model_not_found")
        return self._models[name]
