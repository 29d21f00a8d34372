"""Threads that work for one served model, from its first request until the server ends."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from pathlib import Path

from hpo.errors import UsageError
from hpo.quoting import clipped
from hpo.serving.metrics import Meter
from hpo.serving.refusal import Refusal
from trainers.runtime.bundle import Bundle
from trainers.runtime.card import ReleaseError
from trainers.runtime.release import Release

log = logging.getLogger("hpo.serving")


class Worker(ABC):
    """What is changed from outside is changed while `_changed` is held; then a thread is notified."""

    def __init__(self, name: str, served: Release, threads: int = 1) -> None:
        """`served` is a release, or a bundle, for whose adapters one worker works."""
        self._served = served
        self.meter = Meter()
        self._changed = threading.Condition()
        self._is_closed = False
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for _ in range(threads)]

    def _start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether its threads run."""
        return all(thread.is_alive() for thread in self._threads)

    def add_adapter(self, name: str, folder: Path) -> Release:
        """Load an adapter of a bundle while its others are served; one of that name is replaced.

        It answers once before requests get it: one that cannot would fail the rows of others in its batch. Raises
        `ReleaseError` for an adapter that is damaged or of another base, and `UsageError` where no bundle is served.
        """
        release = self._bundle.made(folder)
        answer_example(release, folder)
        self._bundle.put(name, release)
        return release

    def remove_adapter(self, name: str) -> None:
        """Forget an adapter of a bundle; requests that it has begun end with it.

        Raises `ValueError` for one that is not loaded, and `UsageError` where no bundle is served.
        """
        self._bundle.remove(name)

    @property
    def _bundle(self) -> Bundle:
        if not isinstance(self._served, Bundle):
            raise UsageError(f"this release of {self._served.card.task} is not a bundle; only a bundle has adapters")
        return self._served

    def close(self) -> None:
        """End the threads after what they are doing now."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _failure(self, error: Exception) -> Refusal:
        """What requests get on which the model failed; the log gets what it said, which they shall not see."""
        kind, card = type(error).__name__, self._served.card
        log.error("a model of %s (%s) failed: %s: %s", card.task, card.variant, kind, clipped(str(error), 500))
        return Refusal(500, f"the model failed: {kind}", code="model_failed")

    @abstractmethod
    def _work(self) -> None:
        """What a thread does, until `_is_closed`."""


def answer_example(release: Release, folder: Path) -> None:
    """Let a release answer once: the first answer is the slowest, and nobody shall wait for it.

    Raises `ReleaseError` where it cannot answer.
    """
    try:
        for each in release.releases().values() if isinstance(release, Bundle) else [release]:
            each.predict([each.card.example], 1)
    except Exception as error:  # onnxruntime raises direct subclasses of Exception
        found = f"{type(error).__name__}: {clipped(str(error))}"
        raise ReleaseError(f"{folder} cannot answer its own example: {found}") from error
