"""An executor that outlives its trial host: starts another one, and reports what was under way as interrupted."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from pathlib import Path

from hpo.errors import HostGone, SweepError
from hpo.executors.base import Executor
from trainers.protocol.events import TERMINAL, Event, Failed
from trainers.protocol.requests import Load, Request, Verdict

MOST_IN_A_ROW = 3
"""Hosts that end without having brought one event in between: something is wrong with the machine, not by chance."""


class RestartingExecutor:
    """Wraps executors made by `start`; the last `Load` is repeated in each new one. `name` is their process's in
    messages for people."""

    def __init__(self, start: Callable[[], Executor], name: str = "the trial host") -> None:
        self._start = start
        self._name = name
        self._inner = start()
        self._load: Load | None = None
        self._loading: int | None = None
        """Our id of the `Load` under way: a new host repeats it, so it is never lost."""
        self._next_id = 0
        self._outer: dict[int, int] = {}
        """The inner executor's ids of what is under way -> ours."""
        self._left: deque[tuple[int, Event]] = deque()
        """Events that hosts which have ended left behind."""
        self._failures = 0

    def submit(self, request: Request, place: str = "") -> int:
        """Begin a request, in a new host when the last one has ended. Raises `SweepError` as `wait` does."""
        self._next_id += 1
        if isinstance(request, Load):
            self._load, self._loading = request, self._next_id
        at = (place,) if place else ()
        while True:
            try:
                self._outer[self._inner.submit(request, *at)] = self._next_id
            except HostGone as error:
                self._restart(error)
                if not isinstance(request, Load):
                    continue
            return self._next_id

    def wait(self, timeout_s: float | None = None) -> tuple[int, Event] | None:
        """The next event of any host. Raises `SweepError` when one new host after the other ends."""
        while not self._left:
            try:
                message = self._inner.wait(timeout_s)
            except HostGone as error:
                self._restart(error)
                continue
            if message is None:
                return None
            self._failures = 0
            self._take(*message)
        return self._left.popleft()

    def _take(self, inner: int, event: Event) -> None:
        """Pass on an event of the inner executor under our id."""
        outer = self._outer.pop(inner) if isinstance(event, TERMINAL) else self._outer[inner]
        if isinstance(event, TERMINAL) and outer == self._loading:
            self._loading = None
        self._left.append((outer, event))

    def reply(self, request_id: int, trial: int, verdict: Verdict) -> None:
        """Send a verdict to one trial of a request; one that a host took with it has ended already."""
        self._pass_on(request_id, lambda inner: self._inner.reply(inner, trial, verdict))

    def kill(self, request_id: int) -> None:
        """End a request; one that a host took with it has ended already."""
        self._pass_on(request_id, self._inner.kill)

    def fetch(self, path: Path) -> Path:
        """Where the executor in use has it."""
        return self._inner.fetch(path)

    def _pass_on(self, request_id: int, message: Callable[[int], None]) -> None:
        for inner, outer in self._outer.items():
            if outer == request_id:
                try:
                    message(inner)
                except HostGone as error:
                    self._restart(error)
                return

    def close(self) -> None:
        """End the host in use; those before it are gone."""
        self._inner.close()

    def _restart(self, error: HostGone) -> None:
        """Raises `SweepError` when one host after the other ends."""
        self._failures += 1
        if self._failures > MOST_IN_A_ROW:
            raise SweepError(f"{self._name} ended {MOST_IN_A_ROW + 1} times in a row: {error}") from error
        with contextlib.suppress(HostGone):  # a result that has arrived counts
            while message := self._inner.wait(0.0):
                self._take(*message)
        self._inner.close()  # returns when the last of its children is gone, so none runs beside its successor
        ended = Failed("interrupted", f"{self._name} ended unexpectedly")
        self._left.extend((outer, ended) for outer in self._outer.values() if outer != self._loading)
        self._outer.clear()
        self._inner = self._start()
        if self._load is not None:
            self._warm_up(self._load)

    def _warm_up(self, load: Load) -> None:
        try:
            loading = self._inner.submit(load)
            while True:
                message = self._inner.wait()
                if message and message[0] == loading:
                    break
        except HostGone as error:
            self._restart(error)
            return
        event = message[1]
        if self._loading is not None:
            self._left.append((self._loading, event))
            self._loading = None
        elif isinstance(event, Failed):
            raise SweepError(
                f"{self._name} was started again and could not load the base model: {event.cause}: {event.message}"
            )
