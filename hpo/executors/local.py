"""Runs requests on this machine, through a trial host that forks a child for each."""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from hpo.errors import HostGone, SweepError
from hpo.studies_database import without_studies
from trainers.protocol.events import Event
from trainers.protocol.messages import decode, encode
from trainers.protocol.requests import Request, Verdict

_HOST_ENVIRONMENT = {
    # The host must stay single-threaded to be forked; children set their own count.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_DEACTIVATE_ASYNC_LOAD": "1",
    # Counting devices through NVML leaves CUDA untouched.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONUNBUFFERED": "1",
}

PASSIVE_WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads of torch that wait for each other sleep. By default they spin on a core that others could use: beside one
busy process, two-threaded work then takes several times as long. A value of yours stays, and so does a
`GOMP_SPINCOUNT`, which decides before it: they change no result."""

HOST_ENDS_WITHIN_S = 1.0
"""After that it is killed: it may be importing, or standing in a write."""
ENDS_WITHIN_S = 10.0


class LocalExecutor:
    """One trial host; `keep_fds` are inherited by it and its children (the sweep's lock)."""

    def __init__(self, log: Path, worker: str = "trainers.host.dispatch", keep_fds: Sequence[int] = ()) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        # Host and children inherit one end and write nothing: when the last of them is gone, ours reads its end.
        self._alive_fd, inherited_fd = os.pipe()
        with log.open("ab") as output:
            self._host = subprocess.Popen(
                [sys.executable, "-m", "trainers.host.host", worker],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                bufsize=0,
                env={**PASSIVE_WAITING, **without_studies(os.environ), **_HOST_ENVIRONMENT},
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

    def submit(self, request: Request) -> int:
        """Send a request to the host. Raises `HostGone` when the host has ended."""
        self._next_id += 1
        self._send({"id": self._next_id, "request": encode(request)})
        return self._next_id

    def wait(self, timeout_s: float | None = None) -> tuple[int, Event] | None:
        """The next event, or None after `timeout_s` seconds without one. Raises `HostGone` when the host has ended."""
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
                f"the trial host ended unexpectedly (exit code {code}); see {self._log}; "
                f"{fix}the same command continues the sweep"
            )
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            message = json.loads(line)
            self._events.append((message["id"], decode(message["event"])))

    def reply(self, request_id: int, trial: int, verdict: Verdict) -> None:
        """Send a verdict to one trial of a request. Raises `HostGone` when the host has ended."""
        self._send({"id": request_id, "trial": trial, "verdict": verdict})

    def fetch(self, path: Path) -> Path:
        """The path itself: host and children write to this machine's disk."""
        return path

    def kill(self, request_id: int) -> None:
        """Have the host kill the request's process. Raises `HostGone` when the host has ended."""
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
            raise HostGone(f"the trial host is gone; see {self._log}") from error

    def close(self) -> None:
        """End the host; it kills its children when its pipe closes. Returns when the last of them is gone."""
        if self._is_closed:
            return
        self._is_closed = True
        assert self._host.stdin is not None  # noqa: S101  # PIPE was asked for
        assert self._host.stdout is not None  # noqa: S101  # PIPE was asked for
        self._host.stdin.close()
        self._selector.close()
        self._host.stdout.close()  # the host may stand in a write that nobody will read
        try:
            self._host.wait(timeout=HOST_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._host.kill()
            self._host.wait()
        try:
            if not self._all_gone_within(0.0):  # a killed host's children are ending; what they had started is not
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._host.pid, signal.SIGKILL)
                if not self._all_gone_within(ENDS_WITHIN_S):
                    raise SweepError(f"processes of the trial host do not end; see {self._log}")
        finally:
            os.close(self._alive_fd)

    def _all_gone_within(self, seconds: float) -> bool:
        return bool(select.select([self._alive_fd], [], [], seconds)[0])
