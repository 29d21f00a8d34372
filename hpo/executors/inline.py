"""Runs requests in this process, interleaved one event at a time: for tests and debuggers.

A worker is a generator function, so two trials advance in turn without threads, always in the same order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator

from trainers.spec import TERMINAL, Evaluation, Event, Failed, Request, Verdict

Work = Generator[Event, Verdict | None, None]


class InlineExecutor:
    """`worker` answers a request with a generator of events; a verdict is sent in after each evaluation."""

    def __init__(self, worker: Callable[[Request], Work]) -> None:
        self._worker = worker
        self._next_id = 0
        self._work: dict[int, Work] = {}
        self._ready: deque[tuple[int, Verdict | None]] = deque()

    def submit(self, request: Request) -> int:
        self._next_id += 1
        self._work[self._next_id] = self._worker(request)
        self._ready.append((self._next_id, None))
        return self._next_id

    def wait(self, timeout_s: float | None = None) -> tuple[int, Event] | None:
        if not self._ready:
            return None
        request_id, verdict = self._ready.popleft()
        event = self._advance(request_id, verdict)
        if isinstance(event, TERMINAL):
            self._work.pop(request_id).close()
        elif not isinstance(event, Evaluation):
            self._ready.append((request_id, None))
        return request_id, event

    def _advance(self, request_id: int, verdict: Verdict | None) -> Event:
        try:
            return self._work[request_id].send(verdict)
        except StopIteration:
            return Failed("crash", "the trainer ended without a result")
        except MemoryError as error:
            return Failed("oom", str(error) or "out of memory")
        except (Exception, SystemExit) as error:  # noqa: BLE001  # rule 4: whatever happens to a request is its result
            return Failed("crash", f"{type(error).__name__}: {error}")

    def reply(self, request_id: int, verdict: Verdict) -> None:
        self._ready.append((request_id, verdict))

    def close(self) -> None:
        for work in self._work.values():
            work.close()
        self._work.clear()
        self._ready.clear()
