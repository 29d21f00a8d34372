"""The trial host: holds the base model and forks a child for every request.

    sweep ══ JSON lines ══► host ──fork──► child: one request, its events, the end
          ◄══════════════       ──fork──► child

Started with exec by the sweep, it stays single-threaded and away from CUDA, so that forking it is safe. A child
starts warm (the base is already in memory, shared copy on write) and takes its memory, its threads and its crash
with it when it ends. Host and children die with the sweep: by the closed pipe, and by the parent-death signal.

    python -m trainers.host.host WORKER      WORKER: a module with `work(request)`, a generator of events
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import selectors
import signal
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from trainers.host.child import die_only_with, end_process, events_of, failed, how_it_ended, print_traceback
from trainers.memory import oom_kills, volunteer_for_oom_kill
from trainers.protocol.events import TERMINAL, Evaluation, Event, Failed, Step, TrialEvent
from trainers.protocol.files import TrialPaths
from trainers.protocol.messages import decode, encode
from trainers.protocol.requests import Check, Freeze, Import, Inspect, Load, Request, Train, Verdict

Worker = Callable[[Request], Generator[Event, Verdict | None, None]]
READ_AT_MOST = 1 << 16
"""Bytes: what a pipe holds."""
CANNOT_FORK = "the trial host has threads and cannot fork safely"


@dataclass
class _Child:
    request_id: int
    pid: int
    pidfd: int
    events_fd: int
    verdicts_fd: int
    oom_kills: int
    """The kernel's counter at a time when the child was alive for certain."""
    oom_kills_latest: int
    """The counter just before its pipe was last read; it lived on if anything was to be read after that."""
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
        chunk = os.read(self.requests_fd, READ_AT_MOST)
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            self._take(json.loads(line))
        return bool(chunk)

    def _take(self, message: dict[str, Any]) -> None:
        request_id = message["id"]
        child = self.children.get(request_id)
        if "verdict" in message:
            # A child that has just died cannot be answered; its end is on its way through the other pipe.
            if child:
                with contextlib.suppress(BrokenPipeError):
                    os.write(child.verdicts_fd, f"{message['trial']} {message['verdict']}\n".encode())
            return
        if "kill" in message:
            if child:
                os.kill(child.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
            return
        request = decode(message["request"])
        if isinstance(request, (Import, Load)):
            with _collected_later():
                for event in events_of(partial(self.worker, request), _Verdicts(None)):
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
        host_pid, counted = os.getpid(), oom_kills()
        try:
            pid = os.fork()
        except OSError as error:  # no memory, or too many processes: that is this request's bad luck alone
            for fd in (events_read, events_write, verdicts_read, verdicts_write):
                os.close(fd)
            self._send(request_id, encode(failed(error)))
            return
        if pid == 0:
            for other in self.children.values():
                for fd in (other.events_fd, other.verdicts_fd, other.pidfd):
                    os.close(fd)
            for fd in (events_read, verdicts_write, self.requests_fd, self.events_fd):
                os.close(fd)
            _run_child(self.worker, request, events_write, verdicts_read, host_pid)
        os.close(events_write)
        os.close(verdicts_read)
        child = _Child(request_id, pid, os.pidfd_open(pid), events_read, verdicts_write, counted, counted)
        self.children[request_id] = child
        self._selector.register(events_read, selectors.EVENT_READ, (self._read_child, child))
        # Its death is watched apart: a process that it left behind may hold the pipe open for ever.
        self._selector.register(child.pidfd, selectors.EVENT_READ, (self._bury, child))

    def _read_child(self, child: _Child) -> bool:
        """Pass on what a child has written; False when there is nothing (more)."""
        counted = oom_kills()
        try:
            chunk = os.read(child.events_fd, READ_AT_MOST)
        except BlockingIOError:
            chunk = b""
        if not chunk:
            return False
        *lines, child.buffer = (child.buffer + chunk).split(b"\n")
        for line in lines:
            event = json.loads(line)
            child.ended |= event["type"] in {cls.__name__ for cls in TERMINAL}
            self._send(child.request_id, event)
        if len(chunk) < READ_AT_MOST:  # else more had been written already
            child.oom_kills, child.oom_kills_latest = child.oom_kills_latest, counted
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
            ended = how_it_ended(os.waitstatus_to_exitcode(status), kernel_killed=oom_kills() > child.oom_kills)
            self._send(child.request_id, encode(ended))

    def _send(self, request_id: int, event: dict[str, Any]) -> None:
        line = json.dumps({"id": request_id, "event": event}).encode() + b"\n"
        while line:
            line = line[os.write(self.events_fd, line) :]

    def _kill_children(self) -> None:
        for child in self.children.values():
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)


@contextlib.contextmanager
def _collected_later() -> Iterator[None]:
    """No garbage collection meanwhile, and none of what is made here later: it stays, and is shared with all children.

    Imports make a million objects; looking at them again and again takes a quarter of the time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class _Verdicts:
    """A child's end of the pipe that verdicts come through, each with a trial's number; None where nobody sends any."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._buffer = b""
        self._waiting: defaultdict[int, deque[Verdict]] = defaultdict(deque)
        """Trial -> verdicts that it has not taken yet."""

    def after(self, event: Event) -> Verdict | None:
        """The verdict on a trial's evaluation, waited for; after a step only what is there already."""
        if self._fd is None or not isinstance(event, TrialEvent) or not isinstance(event.report, (Evaluation, Step)):
            return None
        waiting = self._waiting[event.trial]
        while not waiting:
            if isinstance(event.report, Step) and not select.select([self._fd], [], [], 0)[0]:
                return None
            self._read(self._fd)
        return waiting.popleft()

    def _read(self, fd: int) -> None:
        chunk = os.read(fd, 1 << 10)
        if not chunk:
            raise EOFError("the trial host is gone")
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            trial, verdict = line.decode().split()
            self._waiting[int(trial)].append(verdict)  # type: ignore[arg-type]  # the sweep sends verdicts only


def _run_child(worker: Worker, request: Request, events_fd: int, verdicts_fd: int, host_pid: int) -> NoReturn:
    """Answer one request and end the process; never returns."""
    code = 1
    try:
        die_only_with(host_pid)
        volunteer_for_oom_kill()
        with os.fdopen(events_fd, "w") as events:
            for event in events_of(partial(_begin, worker, request), _Verdicts(verdicts_fd)):
                events.write(json.dumps(encode(event)) + "\n")
                events.flush()
        code = 0
    except BaseException:  # noqa: BLE001  # nothing may unwind into the host's loop; the log keeps the traceback
        print_traceback()
    finally:
        end_process(code)


def _begin(worker: Worker, request: Request) -> Generator[Event, Verdict | None, None]:
    """The worker's answer; what it prints goes to the log of its trial, of the first one where it has several."""
    if isinstance(request, (Inspect, Check, Freeze)):  # this halves what reading rows and tokenizing take
        os.environ["TOKENIZERS_PARALLELISM"] = "true"  # threads, which only the host may not have
        gc.set_threshold(100_000)  # rows are plain objects, hundreds of thousands of them, and nearly all stay
    if isinstance(request, Train):
        first, *others = (TrialPaths(Path(spec.dir)).log for spec in request.specs)
        for log in (first, *others):
            log.parent.mkdir(parents=True, exist_ok=True)
        for log in others:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"trained in one process with others; its log is {first}\n")
        _redirect_output(first)
    return worker(request)


def _redirect_output(log: Path) -> None:
    """Send whatever any library prints, in Python or in C, to a log file."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def main() -> None:
    """Serve requests on standard input with events on standard output; prints of libraries go to standard error."""
    requests_fd, events_fd = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    if sys.flags.safe_path:  # a file of your own may import what lies beside it, but that takes no library's place
        sys.path.append("")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_only_with(os.getppid())
    Host(importlib.import_module(sys.argv[1]).work, requests_fd, events_fd).run()
    sys.stderr.flush()
    os._exit(0)  # taking down all that trials had imported is more than a second's work, for nothing


if __name__ == "__main__":
    main()
