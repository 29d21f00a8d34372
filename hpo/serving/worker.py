"""A thread that works for one served model, from its first request until the server ends."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from pathlib import Path

from hpo.errors import UsageError
from hpo.quoting import clipped
from hpo.serving.metrics import Meter
from trainers.runtime.bundle import Bundle
from trainers.runtime.card import ReleaseError
from trainers.runtime.release import Release


class Worker(ABC):
    """What is changed from outside is changed while `_changed` is held; then the thread is notified."""

    def __init__(self, name: str, served: Release) -> None:
        """`served` is a release, or a bundle, for whose adapters one worker works."""
        self._served = served
        self.meter = Meter()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

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
            raise UsageError(f"this release of {self._served.card.task} is no bundle; only a bundle has adapters")
        return self._served

    def close(self) -> None:
        """End the thread after what it is doing now."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    @abstractmethod
    def _work(self) -> None:
        """What the thread does, until `_is_closed`."""


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
