"""A process that takes requests as lines of JSON and answers with events: what the executors of this machine share."""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.errors import HostGone, SweepError
from trainers.protocol.events import Event
from trainers.protocol.messages import decode, encode
from trainers.protocol.requests import Request, Verdict

ENDS_WITHIN_S = 10.0


class PipedExecutor:
    """A process of its own session; `keep_fds` are inherited by it and its children (the sweep's lock)."""

    name = "the process"
    """In messages for people."""
    ends_within_s = 1.0
    """After that it is killed."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, keep_fds: Sequence[int] = ()
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        # Process and children inherit one end and write nothing: when the last of them is gone, ours reads its end.
        self._alive_fd, inherited_fd = os.pipe()
        with log.open("ab") as output:
            self._host = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                bufsize=0,
                env=environment,
                pass_fds=(*keep_fds, inherited_fd),
                start_new_session=True,  # Ctrl-C is for the sweep, which then decides
            )
        os.close(inherited_fd)
        self._is_closed = False
        self._next_id = 0
        self._buffer = b""
        self._events: deque[tuple[int, Event]] = deque()
        self._selector = selectors.DefaultSelector()
        assert self._host.stdout is not None  # noqa: S101  # PIPE was asked for
        assert self._host.stdin is not None  # noqa: S101  # PIPE was asked for
        self._selector.register(self._host.stdout, selectors.EVENT_READ)
        os.set_blocking(self._host.stdin.fileno(), False)

    def submit(self, request: Request, place: str = "") -> int:
        """Send a request to the process. Raises `HostGone` when it has ended."""
        self._next_id += 1
        at = {"place": place} if place else {}
        self._send({"id": self._next_id, "request": encode(request), **at})
        return self._next_id

    def wait(self, timeout_s: float | None = None) -> tuple[int, Event] | None:
        """The next event, or None after `timeout_s` seconds without one. Raises `HostGone` when the process ended."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._events:
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            if self._selector.select(remaining):
                self._read()
            elif remaining == 0.0:
                return None
        return self._events.popleft()

    def _read(self) -> None:
        assert self._host.stdout is not None  # noqa: S101  # PIPE was asked for
        chunk = os.read(self._host.stdout.fileno(), 1 << 16)
        if not chunk:
            code = self._host.wait()
            fix = "" if code < 0 else "fix what it reports, then "  # killed from outside, it reports nothing
            raise HostGone(
                f"{self.name} ended unexpectedly (exit code {code}); see {self._log}; "
                f"{fix}the same command continues the sweep"
            )
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        """Line up the event of a message."""
        self._events.append((message["id"], decode(message["event"])))

    def reply(self, request_id: int, trial: int, verdict: Verdict) -> None:
        """Send a verdict to one trial of a request. Raises `HostGone` when the process has ended."""
        self._send({"id": request_id, "trial": trial, "verdict": verdict})

    def fetch(self, path: Path) -> Path:
        """The path itself: what requests wrote is on this machine's disk."""
        return path

    def kill(self, request_id: int) -> None:
        """Have the request's own process killed. Raises `HostGone` when the process has ended."""
        self._send({"id": request_id, "kill": True})

    def _send(self, message: object) -> None:
        """Write a message, reading events meanwhile: if each side waited for the other to read, both would stand."""
        assert self._host.stdin is not None  # noqa: S101  # PIPE was asked for
        assert self._host.stdout is not None  # noqa: S101  # PIPE was asked for
        line = json.dumps(message).encode() + b"\n"
        try:
            while line:
                readable, writable, _ = select.select([self._host.stdout], [self._host.stdin], [])
                if readable:
                    self._read()
                if writable:
                    line = line[os.write(self._host.stdin.fileno(), line) :]
        except BrokenPipeError as error:
            raise HostGone(f"{self.name} is gone; see {self._log}") from error

    def close(self) -> None:
        """End the process; it kills its children when its pipe closes. Returns when the last of them is gone."""
        if self._is_closed:
            return
        self._is_closed = True
        assert self._host.stdin is not None  # noqa: S101  # PIPE was asked for
        assert self._host.stdout is not None  # noqa: S101  # PIPE was asked for
        self._host.stdin.close()
        self._selector.close()
        self._host.stdout.close()  # the process may stand in a write that nobody will read
        try:
            self._host.wait(timeout=self.ends_within_s)
        except subprocess.TimeoutExpired:
            self._host.kill()
            self._host.wait()
        try:
            if not self._all_gone_within(0.0):  # a killed process's children are ending; what they had started is not
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._host.pid, signal.SIGKILL)
                if not self._all_gone_within(ENDS_WITHIN_S):
                    raise SweepError(f"processes of {self.name} do not end; see {self._log}")
        finally:
            os.close(self._alive_fd)

    def _all_gone_within(self, seconds: float) -> bool:
        return bool(select.select([self._alive_fd], [], [], seconds)[0])
