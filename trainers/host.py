"""The trial host: holds the base model and forks a child for every request.

    sweep ══ JSON lines ══► host ──fork──► child: one request, its events, the end
          ◄══════════════       ──fork──► child

Started with exec by the sweep, it stays single-threaded and away from CUDA, so that forking it is safe. A child
starts warm (the base is already in memory, shared copy on write) and takes its memory, its threads and its crash
with it when it ends. Host and children die with the sweep: by the closed pipe, and by the parent-death signal.

    python -m trainers.host WORKER      WORKER: a module with `work(request)`, a generator of events
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import selectors
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainers.files import TrialPaths
from trainers.spec import TERMINAL, Event, Failed, Load, Request, TrainRequest, Verdict, decode, encode

Worker = Callable[[Request], Generator[Event, Verdict | None, None]]
_PR_SET_PDEATHSIG = 1
CANNOT_FORK = "the trial host has threads and cannot fork safely"


@dataclass
class _Child:
    request_id: int
    pid: int
    pidfd: int
    events_fd: int
    verdicts_fd: int
    buffer: bytes = b""
    ended: bool = False
    """Whether its terminal event has been passed on."""


@dataclass
class Host:
    """Reads requests from one pipe, writes events to another, and forks in between."""

    worker: Worker
    requests_fd: int
    events_fd: int
    children: dict[int, _Child] = field(default_factory=dict)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _buffer: bytes = b""

    def run(self) -> None:
        """Serve until the sweep closes its end of a pipe."""
        self._selector.register(self.requests_fd, selectors.EVENT_READ, None)
        try:
            while True:
                for key, _ in self._selector.select():
                    if key.data is None:
                        if not self._read_requests():
                            return
                        continue
                    act, child = key.data
                    if child.request_id in self.children:  # not buried a moment ago
                        act(child)
        except BrokenPipeError:
            return  # nobody reads our events any more
        finally:
            self._kill_children()

    def _read_requests(self) -> bool:
        """Take what the sweep has sent; False when it has closed its end."""
        chunk = os.read(self.requests_fd, 1 << 16)
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            self._take(json.loads(line))
        return bool(chunk)

    def _take(self, message: dict[str, Any]) -> None:
        request_id = message["id"]
        if "verdict" in message:
            # A child that has just died cannot be answered; its end is on its way through the other pipe.
            if child := self.children.get(request_id):
                with contextlib.suppress(BrokenPipeError):
                    os.write(child.verdicts_fd, message["verdict"].encode() + b"\n")
            return
        request = decode(message["request"])
        if isinstance(request, Load):
            for event in _events_of(self.worker, request, iter(())):
                self._send(request_id, encode(event))
        else:
            self._fork(request_id, request)

    def _fork(self, request_id: int, request: Request) -> None:
        threads = os.listdir("/proc/self/task")
        if len(threads) != 1:
            self._send(request_id, encode(Failed("crash", f"{CANNOT_FORK} ({len(threads)} threads)")))
            return
        events_read, events_write = os.pipe()
        os.set_blocking(events_read, False)
        verdicts_read, verdicts_write = os.pipe()
        host_pid, pid = os.getpid(), os.fork()
        if pid == 0:
            for other in self.children.values():
                for fd in (other.events_fd, other.verdicts_fd, other.pidfd):
                    os.close(fd)
            for fd in (events_read, verdicts_write, self.requests_fd, self.events_fd):
                os.close(fd)
            _run_child(self.worker, request, events_write, verdicts_read, host_pid)
        os.close(events_write)
        os.close(verdicts_read)
        child = _Child(request_id, pid, os.pidfd_open(pid), events_read, verdicts_write)
        self.children[request_id] = child
        self._selector.register(events_read, selectors.EVENT_READ, (self._read_child, child))
        # Its death is watched apart: a process that it left behind may hold the pipe open for ever.
        self._selector.register(child.pidfd, selectors.EVENT_READ, (self._bury, child))

    def _read_child(self, child: _Child) -> bool:
        """Pass on what a child has written; False when there is nothing (more)."""
        try:
            chunk = os.read(child.events_fd, 1 << 16)
        except BlockingIOError:
            chunk = b""
        if not chunk:
            return False
        *lines, child.buffer = (child.buffer + chunk).split(b"\n")
        for line in lines:
            event = json.loads(line)
            child.ended |= event["type"] in {cls.__name__ for cls in TERMINAL}
            self._send(child.request_id, event)
        return True

    def _bury(self, child: _Child) -> None:
        """Pass on what a dead child had still written, and tell how it ended if it did not."""
        while self._read_child(child):
            pass
        for fd in (child.events_fd, child.pidfd):
            self._selector.unregister(fd)
        for fd in (child.events_fd, child.pidfd, child.verdicts_fd):
            os.close(fd)
        _, status = os.waitpid(child.pid, 0)
        del self.children[child.request_id]
        if not child.ended:
            code = os.waitstatus_to_exitcode(status)
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            self._send(child.request_id, encode(Failed("crash", f"the trial's process {how}")))

    def _send(self, request_id: int, event: dict[str, Any]) -> None:
        line = json.dumps({"id": request_id, "event": event}).encode() + b"\n"
        while line:
            line = line[os.write(self.events_fd, line) :]

    def _kill_children(self) -> None:
        for child in self.children.values():
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)


def _events_of(worker: Worker, request: Request, verdicts: Iterator[Verdict]) -> Iterator[Event]:
    """A worker's events up to the terminal one; an exception becomes `Failed`."""
    verdict: Verdict | None = None
    try:
        work = worker(request)
        while True:
            event = work.send(verdict)
            yield event
            if isinstance(event, TERMINAL):
                return
            verdict = next(verdicts) if type(event).__name__ == "Evaluation" else None
    except StopIteration:
        yield Failed("crash", "the trainer ended without a result")
    except MemoryError as error:
        yield Failed("oom", str(error) or "out of memory")
    except (Exception, SystemExit) as error:  # noqa: BLE001  # the border of a process: whatever happened is the request's result
        traceback.print_exc()
        yield Failed("crash", f"{type(error).__name__}: {error}")


def _run_child(worker: Worker, request: Request, events_fd: int, verdicts_fd: int, host_pid: int) -> None:
    """Answer one request and end the process; never returns."""
    code = 1
    try:
        die_with_parent(host_pid)
        if isinstance(request, TrainRequest):
            log = TrialPaths(Path(request.spec.dir)).log
            log.parent.mkdir(parents=True, exist_ok=True)
            _redirect_output(log)
        verdicts = os.fdopen(verdicts_fd)
        with os.fdopen(events_fd, "w") as events:
            for event in _events_of(worker, request, (line.strip() for line in verdicts)):  # type: ignore[misc]  # the sweep sends verdicts only
                events.write(json.dumps(encode(event)) + "\n")
                events.flush()
        code = 0
    except BaseException:  # noqa: BLE001  # nothing may unwind into the host's loop; the log keeps the traceback
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _redirect_output(log: Path) -> None:
    """Send whatever any library prints, in Python or in C, to a log file."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent ends (Linux); it may have ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            os._exit(1)


def main() -> None:
    """Serve requests on standard input with events on standard output; prints of libraries go to standard error."""
    requests_fd, events_fd = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(os.getppid())
    Host(importlib.import_module(sys.argv[1]).work, requests_fd, events_fd).run()


if __name__ == "__main__":
    main()
