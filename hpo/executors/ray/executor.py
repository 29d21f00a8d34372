"""Trains on the nodes of a Ray cluster: what reads your data or makes releases runs on this machine."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hpo.databases.studies import without_studies
from hpo.errors import ClusterError
from hpo.executors.base import Place
from hpo.executors.environment import Environment, environment_here
from hpo.executors.local import LocalExecutor
from hpo.executors.piped import PipedExecutor
from hpo.executors.ray.address import address_of
from hpo.executors.restarting import RestartingExecutor
from hpo.lock import boot_id
from hpo.module_command import module_command
from trainers.protocol.codec import fingerprint, from_json, to_json
from trainers.protocol.events import TERMINAL, Event
from trainers.protocol.requests import Load, MeasureMemory, Probe, Request, Score, Train, Verdict

ON_NODES = (Load, Train, Probe, MeasureMemory, Score)
"""Requests that need a model on a device, and no file of yours but those that are sent along."""
TURN_S = 0.05
"""Where requests are under way here and on nodes, each side is listened to for so long."""


@dataclass(frozen=True)
class ClusterSettings:
    """What the process that speaks to Ray is started with."""

    address: str | None = None
    """HOST:PORT; None for a Ray of the sweep's own on this machine."""
    shared_home: bool = False
    """Whether all nodes see the same files under the same paths."""
    name: str = "hpo"
    """Of the sweep: two that have the same never run at the same time on one node."""
    worker: str = "trainers.host.dispatch"
    environment: Environment = field(default_factory=Environment)
    """Of this machine: nodes have the same packages."""
    is_again: bool = False
    """Whether this process takes the place of one that ended, with the cluster that it had."""


class ClusterExecutor(PipedExecutor):
    """The nodes alone. Ray lives in a process of its own, with its threads, its signal handlers and what it prints: it
    ends its process where the head of the cluster is gone for a minute, which must not be the sweep's."""

    name = "the process that speaks to Ray"
    ends_within_s = 10.0

    def __init__(
        self, settings: ClusterSettings, log: Path, keep_fds: Sequence[int], say: Callable[[str], None]
    ) -> None:
        self.places: list[Place] = []
        self._say = say
        command = module_command("hpo.executors.ray.bridge", json.dumps(to_json(settings)))
        super().__init__(command, without_studies(os.environ), log, keep_fds)

    def _take(self, message: dict[str, Any]) -> None:
        if "error" in message:
            raise ClusterError(message["error"])
        if "say" in message:
            self._say(message["say"])
        elif "places" in message:
            self.places = [from_json(Place, place) for place in message["places"]]
        else:
            super()._take(message)


class RayExecutor:
    """Two executors as one: a trial host on this machine, and the nodes."""

    def __init__(
        self, settings: ClusterSettings, log: Path, keep_fds: Sequence[int] = (),
        say: Callable[[str], None] = lambda text: None,
    ) -> None:  # fmt: skip
        if find_spec("ray") is None:
            raise ClusterError("executor: ray needs Ray, which is not installed: pip install 'ray>=2.60,<3'")

        self._settings = settings

        def connect() -> ClusterExecutor:
            self._cluster = ClusterExecutor(self._settings, log, keep_fds, say)
            self._settings = replace(settings, is_again=True)
            return self._cluster

        self._nodes = RestartingExecutor(connect, ClusterExecutor.name)
        self._here = RestartingExecutor(lambda: LocalExecutor(log, settings.worker, keep_fds))
        self.is_closed = False
        self._next_id = 0
        self._under_way: dict[int, tuple[RestartingExecutor, int]] = {}

    def submit(self, request: Request, place: str = "") -> int:
        """Begin a request, on a node where it trains. Raises `SweepError` as `wait` does."""
        executor = self._nodes if isinstance(request, ON_NODES) else self._here
        self._next_id += 1
        self._under_way[self._next_id] = (executor, executor.submit(request, place))
        return self._next_id

    def wait(self, timeout_s: float | None = None) -> tuple[int, Event] | None:
        """The next event from here or from a node. Raises `ClusterError` where no node is left that could
        train."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            busy = list(dict.fromkeys(executor for executor, _ in self._under_way.values())) or [self._nodes]
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            for executor in busy:
                turn = left if len(busy) == 1 else TURN_S if left is None else min(TURN_S, left)
                if (message := executor.wait(turn)) is not None:
                    return self._outer(executor, *message)
            if left == 0.0:
                return None

    def _outer(self, executor: RestartingExecutor, inner: int, event: Event) -> tuple[int, Event]:
        outer = next(outer for outer, known in self._under_way.items() if known == (executor, inner))
        if isinstance(event, TERMINAL):
            del self._under_way[outer]
        return outer, event

    def reply(self, request_id: int, trial: int, verdict: Verdict) -> None:
        """Send a verdict to one trial of a request."""
        if under_way := self._under_way.get(request_id):
            under_way[0].reply(under_way[1], trial, verdict)

    def kill(self, request_id: int) -> None:
        """End a request, wherever it runs."""
        if under_way := self._under_way.get(request_id):
            under_way[0].kill(under_way[1])

    def fetch(self, path: Path) -> Path:
        """The path itself: what a request wrote on a node was brought here before its event was passed on."""
        return path

    def places(self) -> Sequence[Place]:
        """The nodes that train now."""
        return tuple(self._cluster.places)

    def under_way(self) -> list[int]:
        """Requests that have not ended."""
        return list(self._under_way)

    def close(self) -> None:
        """End what is under way, on nodes first."""
        self.is_closed = True
        try:
            self._nodes.close()
        finally:
            self._here.close()


def settings_here(address: str, worker: str, log: Path, *, shared_home: bool) -> ClusterSettings:
    """Settings for nodes that have the packages of this machine; a sweep is known by where its log lies, and by this
    machine unless all machines see the same files. What `auto` means is decided here, once: a session that
    loses its cluster never goes on in another one."""
    where = [str(log)] if shared_home else [str(log), socket.gethostname(), boot_id()]
    name = f"{log.parent.name} {fingerprint(where)[:12]}"
    return ClusterSettings(address_of(address), shared_home, name, worker, environment_here())
