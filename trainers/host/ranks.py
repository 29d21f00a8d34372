"""The ranks of one trial: forked from one process, driven as one, and ended together"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from trainers.host.child import die_only_with, end_process, events_of, how_it_ended, print_traceback
from trainers.host.host import CANNOT_FORK
from trainers.memory import oom_kills, volunteer_for_oom_kill
from trainers.protocol.events import TERMINAL, Event, Failed
from trainers.protocol.messages import decode, encode
from trainers.protocol.requests import Verdict

Work = Callable[[int], Generator[Event, Verdict | None, None]]
"""What a rank does, by its number. Number 0 leads: its events are those of all. The others have none but a failure."""
IsLost = Callable[[BaseException], bool]
"""Whether an error of a rank only says that another one is gone."""
LOST = 76
"""Exit code of a rank that lost another one."""
CAUSE_WITHIN_S = 2.0
"""How long to look for the first cause when a rank has lost another one."""
ENDS_WITHIN_S = 2.0
"""How long the leader may take to end after its last event."""


@dataclass
class _Rank:
    """One forked rank, as the process that has forked it sees it."""

    number: int
    pid: int
    pidfd: int
    events_fd: int
    answers_fd: int
    buffer: bytes = b""
    is_silent: bool = False
    """It can say nothing any more: it has ended, or is about to."""
    code: int | None = None
    """Its exit code, once it has ended."""

    @property
    def awaited(self) -> list[int]:
        """What can be read once there is something new of it."""
        if self.code is not None:
            return []
        return [self.pidfd] if self.is_silent else [self.events_fd, self.pidfd]

    def read(self) -> Iterator[Event]:
        """Events that it has written and that were not read yet; waits for nothing."""
        while not self.is_silent and select.select([self.events_fd], [], [], 0)[0]:
            chunk = os.read(self.events_fd, 1 << 16)
            self.is_silent = not chunk
            *lines, self.buffer = (self.buffer + chunk).split(b"\n")
            for line in lines:
                yield decode(json.loads(line))

    def answer(self, verdict: Verdict | None) -> None:
        with suppress(BrokenPipeError):  # it has just ended: that is heard next
            os.write(self.answers_fd, json.dumps(verdict).encode() + b"\n")

    def bury(self) -> None:
        """Take its exit code; waits for its end."""
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def run_ranks(count: int, work: Work, is_lost: IsLost) -> Generator[Event, Verdict | None, Event]:
    """Fork `count` ranks and go on as their leader does: yield its events, and pass verdicts to it.

    Returns the terminal event, when all ranks have ended. One that dies or fails ends the others, and its own cause is
    the end of all. Raises `RuntimeError` in a process with threads.
    """
    if (threads := len(os.listdir("/proc/self/task"))) != 1:
        raise RuntimeError(f"{CANNOT_FORK} ({threads} threads)")
    ranks: list[_Rank] = []
    try:
        for number in range(count):
            ranks.append(_forked(number, work, is_lost, ranks))
        return (yield from _driven(ranks))
    finally:
        for rank in ranks:
            if rank.code is None:
                os.kill(rank.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
            rank.bury()
            for fd in (rank.pidfd, rank.events_fd, rank.answers_fd):
                os.close(fd)


def _driven(ranks: list[_Rank]) -> Generator[Event, Verdict | None, Event]:
    """Yield the leader's events; return its terminal one, or the failure of any rank."""
    leader, kills = ranks[0], oom_kills()
    while True:
        select.select([fd for rank in ranks for fd in rank.awaited], [], [])
        counted = oom_kills()
        _bury(ranks)  # before anything is read: what a dead one had written is there by then
        for rank in ranks:
            for event in rank.read():
                if isinstance(event, Failed):
                    return _named(event, rank, len(ranks))
                if rank is leader and isinstance(event, TERMINAL):
                    select.select([leader.pidfd], [], [], ENDS_WITHIN_S)
                    return event
                if rank is leader:
                    leader.answer((yield event))
        if leader.code is not None or any(rank.code for rank in ranks):  # others may be done before it
            return _cause(ranks, kills)
        if not any(rank.is_silent and rank.code is None for rank in ranks):  # how that one ends is heard next
            kills = counted  # not those since: while a verdict is awaited, a rank may be killed


def _cause(ranks: list[_Rank], kills: int) -> Failed:
    """Why a rank has ended: of several that end one after the other, the one that did not lose another one."""
    until = time.monotonic() + CAUSE_WITHIN_S
    while True:
        for rank in ranks:
            for event in rank.read():
                if isinstance(event, Failed):
                    return _named(event, rank, len(ranks))
            if rank.code not in (None, 0, LOST):
                return _named(how_it_ended(rank.code, kernel_killed=oom_kills() > kills), rank, len(ranks))
        waited_for = [rank.pidfd for rank in ranks if rank.code is None]
        if not waited_for or not select.select(waited_for, [], [], max(0.0, until - time.monotonic()))[0]:
            return Failed("crash", f"the {len(ranks)} processes of the trial lost each other; its log says how")
        _bury(ranks)


def _bury(ranks: list[_Rank]) -> None:
    """Take the exit codes of those that have ended."""
    for rank in ranks:
        if rank.code is None and select.select([rank.pidfd], [], [], 0)[0]:
            rank.bury()


def _named(failed: Failed, rank: _Rank, count: int) -> Failed:
    return Failed(failed.cause, f"device {rank.number + 1} of {count}: {failed.message}", failed.findings)


# --- in a rank's process ---------------------------------------------------------------------------------


def _forked(number: int, work: Work, is_lost: IsLost, others: list[_Rank]) -> _Rank:
    events_read, events_write = os.pipe()
    answers_read, answers_write = os.pipe()
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        for fd in (events_read, events_write, answers_read, answers_write):
            os.close(fd)
        raise
    if pid == 0:
        for fd in (events_read, answers_write, *(fd for o in others for fd in (o.pidfd, o.events_fd, o.answers_fd))):
            os.close(fd)
        _run(partial(work, number), is_lost, events_write, answers_read, parent)
    os.close(events_write)
    os.close(answers_read)
    return _Rank(number, pid, os.pidfd_open(pid), events_read, answers_write)


class _Answers:
    """A verdict, or none, for each event: the process that drives this one decides whether there is any."""

    def __init__(self, fd: int) -> None:
        self._lines = os.fdopen(fd)

    def after(self, event: Event) -> Verdict | None:
        line = self._lines.readline()
        if not line:
            raise EOFError("the process that leads the trial is gone")
        verdict: Verdict | None = json.loads(line)
        return verdict


def _run(
    work: Callable[[], Generator[Event, Verdict | None, None]], is_lost: IsLost, events_fd: int, answers_fd: int,
    parent: int,
) -> NoReturn:  # fmt: skip
    """A rank's whole life."""

    def worker() -> Generator[Event, Verdict | None, None]:
        try:
            yield from work()
        except Exception as error:
            if is_lost(error):
                print_traceback()
                end_process(LOST)
            raise

    code = 1
    try:
        die_only_with(parent)
        volunteer_for_oom_kill()
        with os.fdopen(events_fd, "w") as events:
            for event in events_of(worker, _Answers(answers_fd)):
                events.write(json.dumps(encode(event)) + "\n")
                events.flush()
        code = 0
    except BaseException:  # noqa: BLE001  # nothing may unwind into the loop that forked it; the log keeps the traceback
        print_traceback()
    finally:
        end_process(code)
