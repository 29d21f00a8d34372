"""A forked process of the host: its events up to the terminal one, and how it ends, whatever happens in it"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Iterator
from types import FrameType
from typing import NoReturn, Protocol

from trainers.memory import is_out_of_memory
from trainers.protocol.events import TERMINAL, Cause, Event, Failed
from trainers.protocol.requests import Verdict

_PR_SET_PDEATHSIG = 1


class Verdicts(Protocol):
    """What is said to the events of a worker."""

    def after(self, event: Event) -> Verdict | None:
        """The verdict on an event; None where there is none."""
        ...


def events_of(begin: Callable[[], Generator[Event, Verdict | None, None]], verdicts: Verdicts) -> Iterator[Event]:
    """A worker's events up to the terminal one; an exception becomes `Failed`."""
    verdict: Verdict | None = None
    try:
        work = begin()
        while True:
            event = work.send(verdict)
            yield event
            if isinstance(event, TERMINAL):
                return
            verdict = verdicts.after(event)
    except StopIteration:
        yield Failed("crash", "the trainer ended without a result")
    except (Exception, SystemExit) as error:  # noqa: BLE001  # the border of a process: whatever happened is the request's result
        print_traceback()
        yield failed(error)


def how_it_ended(code: int, *, kernel_killed: bool) -> Failed:
    """The end of a child that said nothing, by its exit code; `kernel_killed`: the kernel has killed some process
    for memory meanwhile."""
    if code == -signal.SIGKILL and kernel_killed:
        return Failed("oom", "the kernel killed the trial's process: the machine ran out of memory")
    names = {number.value: number.name for number in signal.Signals}
    how = f"was killed by {names.get(-code, f'signal {-code}')}" if code < 0 else f"ended with exit code {code}"
    return Failed("crash", f"the trial's process {how}")


def failed(error: BaseException) -> Failed:
    """An exception as the end of a request."""
    message = " ".join(str(error).split())
    cause: Cause = "oom" if is_out_of_memory(error) else "crash"
    return Failed(cause, f"{type(error).__name__}: {message}")


def end_process(code: int) -> NoReturn:
    """End a forked process at once: nothing of its parent's is finished twice."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a full disk; a library that closed it
            stream.flush()
    os._exit(code)


def print_traceback() -> None:
    """On a full disk it cannot be kept, which must not keep its message from the sweep."""
    with contextlib.suppress(OSError, ValueError):
        traceback.print_exc()


def die_only_with(parent_pid: int) -> None:
    """Leave it to the parent when this process ends: at once when the parent does (Linux), but not by SIGTERM.

    Whoever stops a service or a job sends SIGTERM to all its processes. The sweep then has its trials write
    checkpoints, for which they have to live on. What a library forks here ends by SIGTERM as usual.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # it has ended already
            os._exit(1)
    process = os.getpid()

    def live_on(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    signal.signal(signal.SIGTERM, live_on)
