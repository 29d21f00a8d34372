"""Runs requests in this process, interleaved one event at a time: for tests and debuggers.

A worker is a generator function, so two requests advance in turn without threads, always in the same order.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

from trainers.protocol.events import TERMINAL, Cause, Evaluation, Event, Failed, Step, TrialEvent
from trainers.protocol.requests import Request, Verdict

Work = Generator[Event, Verdict | None, None]


@dataclass
class _UnderWay:
    work: Work
    waits_for: int | None = None
    """The trial at whose evaluation the request waits."""
    unasked: defaultdict[int, deque[Verdict]] = field(default_factory=lambda: defaultdict(deque))
    """Trial -> verdicts that wait for its next event that takes one."""


class InlineExecutor:
    """`worker` answers a request with a generator of events; verdicts are sent in where they are taken."""

    def __init__(self, worker: Callable[[Request], Work]) -> None:
        self._worker = worker
        self._next_id = 0
        self._under_way: dict[int, _UnderWay] = {}
        self._ready: deque[tuple[int, Verdict | None]] = deque()
        self._killed: deque[int] = deque()

    def submit(self, request: Request, place: str = "") -> int:
        """Begin a request: its first event is made by a later `wait`."""
        self._next_id += 1
        self._under_way[self._next_id] = _UnderWay(self._worker(request))
        self._ready.append((self._next_id, None))
        return self._next_id

    def wait(self, timeout_s: float | None = None) -> tuple[int, Event] | None:
        """Advance the request whose turn it is by one event; None when all of them wait for a reply."""
        if self._killed:
            return self._killed.popleft(), Failed("crash", "killed")
        if not self._ready:
            return None
        request_id, verdict = self._ready.popleft()
        event = self._advance(request_id, verdict)
        if isinstance(event, TERMINAL):
            self._end(request_id)
        else:
            self._go_on_after(event, request_id)
        return request_id, event

    def _advance(self, request_id: int, verdict: Verdict | None) -> Event:
        try:
            return self._under_way[request_id].work.send(verdict)
        except StopIteration:
            return Failed("crash", "the trainer ended without a result")
        except (Exception, SystemExit) as error:  # noqa: BLE001  # rule 6: whatever happens to a request is its result
            cause: Cause = "oom" if isinstance(error, MemoryError) else "crash"
            return Failed(cause, f"{type(error).__name__}: {error}")

    def _go_on_after(self, event: Event, request_id: int) -> None:
        """Line the request up again, with the verdict that its trial takes; or let it wait for one."""
        request = self._under_way[request_id]
        if isinstance(event, TrialEvent) and isinstance(event.report, (Step, Evaluation)):
            if unasked := request.unasked[event.trial]:
                self._ready.append((request_id, unasked.popleft()))
                return
            if isinstance(event.report, Evaluation):
                request.waits_for = event.trial
                return
        self._ready.append((request_id, None))

    def reply(self, request_id: int, trial: int, verdict: Verdict) -> None:
        """Send a verdict to a trial; a request that waits for it is lined up again."""
        request = self._under_way.get(request_id)
        if request is None:
            return  # it has just ended
        if request.waits_for == trial:
            request.waits_for = None
            self._ready.append((request_id, verdict))
        else:
            request.unasked[trial].append(verdict)

    def kill(self, request_id: int) -> None:
        """Close the request's generator where it stands; the next `wait` says so."""
        if request_id in self._under_way:
            self._end(request_id)
            self._ready = deque((i, v) for i, v in self._ready if i != request_id)
            self._killed.append(request_id)

    def fetch(self, path: Path) -> Path:
        """The path itself: requests write to this machine's disk."""
        return path

    def _end(self, request_id: int) -> None:
        self._under_way.pop(request_id).work.close()

    def close(self) -> None:
        """Close the generators of all requests under way."""
        for request_id in list(self._under_way):
            self._end(request_id)
        self._ready.clear()
        self._killed.clear()
