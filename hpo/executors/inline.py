"""Runs requests in this process, interleaved one event at a time: for tests and debuggers.

A worker is a generator function, so two trials advance in turn without threads, always in the same order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator

from trainers.protocol.messages import TERMINAL, Cause, Evaluation, Event, Failed, Request, Step, Verdict

Work = Generator[Event, Verdict | None, None]


class InlineExecutor:
    """`worker` answers a request with a generator of events; verdicts are sent in where they are taken."""

    def __init__(self, worker: Callable[[Request], Work]) -> None:
        self._worker = worker
        self._next_id = 0
        self._work: dict[int, Work] = {}
        self._ready: deque[tuple[int, Verdict | None]] = deque()
        self._unasked: dict[int, deque[Verdict]] = {}
        """Verdicts that wait for the next event of their request that takes one."""
        self._killed: deque[int] = deque()

    def submit(self, request: Request) -> int:
        self._next_id += 1
        self._work[self._next_id] = self._worker(request)
        self._unasked[self._next_id] = deque()
        self._ready.append((self._next_id, None))
        return self._next_id

    def wait(self, timeout_s: float | None = None) -> tuple[int, Event] | None:
        if self._killed:
            return self._killed.popleft(), Failed("crash", "killed")
        if not self._ready:
            return None
        request_id, verdict = self._ready.popleft()
        event = self._advance(request_id, verdict)
        if isinstance(event, TERMINAL):
            self._end(request_id)
        elif isinstance(event, (Step, Evaluation)) and self._unasked[request_id]:
            self._ready.append((request_id, self._unasked[request_id].popleft()))
        elif not isinstance(event, Evaluation):
            self._ready.append((request_id, None))
        return request_id, event

    def _advance(self, request_id: int, verdict: Verdict | None) -> Event:
        try:
            return self._work[request_id].send(verdict)
        except StopIteration:
            return Failed("crash", "the trainer ended without a result")
        except (Exception, SystemExit) as error:  # noqa: BLE001  # rule 6: whatever happens to a request is its result
            cause: Cause = "oom" if isinstance(error, MemoryError) else "crash"
            return Failed(cause, f"{type(error).__name__}: {error}")

    def reply(self, request_id: int, verdict: Verdict) -> None:
        if request_id not in self._work:
            return  # it has just ended
        if any(request_id == ready for ready, _ in self._ready):
            self._unasked[request_id].append(verdict)
        else:
            self._ready.append((request_id, verdict))

    def kill(self, request_id: int) -> None:
        if request_id in self._work:
            self._end(request_id)
            self._ready = deque((i, v) for i, v in self._ready if i != request_id)
            self._killed.append(request_id)

    def _end(self, request_id: int) -> None:
        self._work.pop(request_id).close()
        del self._unasked[request_id]

    def close(self) -> None:
        for request_id in list(self._work):
            self._end(request_id)
        self._ready.clear()
        self._killed.clear()
