"""A thread that works for one served model, from its first request until the server ends."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from hpo.serving.metrics import Meter


class Worker(ABC):
    """What is changed from outside is changed while `_changed` is held; then the thread is notified."""

    def __init__(self, name: str) -> None:
        self.meter = Meter()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End the thread after what it is doing now."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    @abstractmethod
    def _work(self) -> None:
        """What the thread does, until `_is_closed`."""
