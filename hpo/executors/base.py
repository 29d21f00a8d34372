"""The seam between the sweep and the processes that do the work.

Rules every executor keeps (`tests/hpo/executors/test_contract.py` holds them to it):

1.  `submit` returns at once; several requests may be under way, each answered by its own stream of events.
2.  `wait` gives events one at a time, in order for one request, in any order between requests; the last event of a
    request is terminal, and nothing follows it.
3.  After each `Evaluation` the request stands still until `reply`.
4.  A verdict may also be sent unasked: `stop` and `pause` are taken at the request's next `Step` or `Evaluation`.
5.  `kill` ends a request at once; its terminal event is a `Failed`, unless it had just ended by itself.
6.  A request never takes the executor with it: whatever happens to it ends in `Failed` with a cause.
7.  `close` ends everything that is under way and leaves no process behind.
"""

from __future__ import annotations

from typing import Protocol

from trainers.protocol.messages import Event, Request, Verdict


class Executor(Protocol):
    """Runs requests somewhere and tells what happens."""

    def submit(self, request: Request) -> int:
        """Begin a request; returns its id."""
        ...

    def wait(self, timeout_s: float | None = None) -> tuple[int, Event] | None:
        """The next event of any request, or None after `timeout_s` seconds without one.

        Raises `SweepError` when nothing more can come (the host is gone).
        """
        ...

    def reply(self, request_id: int, verdict: Verdict) -> None:
        """Let a request that stands at an `Evaluation` go on, or stop it."""
        ...

    def kill(self, request_id: int) -> None:
        """End a request that does not answer."""
        ...

    def close(self) -> None: ...
