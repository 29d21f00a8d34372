"""The seam between the sweep and the processes that do the work.

Rules every executor keeps (`tests/hpo/executors/test_contract.py` holds them to it):

1.  `submit` returns at once; several requests may be under way, each answered by its own stream of events.
2.  `wait` gives events one at a time, in order for one request, in any order between requests; the last event of a
    request is terminal, and nothing follows it.
3.  After each `Evaluation` of a trial the request waits for a `reply` to that trial.
4.  A verdict may also be sent unasked: `stop`, `finish` and `pause` are taken at the trial's next `Step` or
    `Evaluation`, and no other trial of the request takes them.
5.  `kill` ends a request at once; its terminal event is a `Failed`, unless it had just ended by itself.
6.  A request never takes the executor with it: whatever happens to it ends in `Failed` with a cause.
7.  `close` ends everything that is under way and leaves no process behind.
8.  What a request wrote is read through `fetch`, once its event has come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hpo.executors.environment import Environment
from trainers.protocol.events import Event

if TYPE_CHECKING:
    from trainers.protocol.requests import Request, Verdict

Fetch = Callable[[Path], Path]
"""`Executor.fetch`, for those who read files and run nothing."""


def here(path: Path) -> Path:
    """`Executor.fetch` where requests run on this machine: the path itself."""
    return path


@dataclass(frozen=True)
class Place:
    """A machine among several that trains, and what it has for that."""

    id: str
    name: str
    """For people."""
    cores: int
    memory_mb: float
    gpus: int
    gpu_memory_mb: float
    """Free on the fullest of them; 0 where that is not known."""
    environment: Environment


class Executor(Protocol):
    """Runs requests somewhere and reports what happens to them."""

    def submit(self, request: Request, place: str = "") -> int:
        """Begin a request; returns its id. `place` is the `Place.id` of where it runs, for executors that have several
        (`NodesExecutor`); one that has left ends it as interrupted."""
        ...

    def wait(self, timeout_s: float | None = None) -> tuple[int, Event] | None:
        """The next event of any request, or None after `timeout_s` seconds without one.

        Raises `SweepError` when nothing more can come (the host is gone).
        """
        ...

    def reply(self, request_id: int, trial: int, verdict: Verdict) -> None:
        """Send a verdict to one trial of a request, by the trial's number; after its end, nothing happens."""
        ...

    def kill(self, request_id: int) -> None:
        """End a request that does not answer, with all its trials; after its end, nothing happens."""
        ...

    def fetch(self, path: Path) -> Path:
        """Where this process can read the file or folder that a request wrote to `path`.

        Executors on this machine answer with `path` itself. Whether it exists is for the caller to see.
        """
        ...

    def close(self) -> None:
        """End what is under way; returns when no process of it is left. A second call does nothing."""
        ...


class NodesExecutor(Executor, Protocol):
    """An executor of several machines, which come and go."""

    def places(self) -> Sequence[Place]:
        """Those that train now."""
        ...
