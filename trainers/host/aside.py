"""Work that must leave nothing in the host: done in a short-lived child, which answers with plain values."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn, TypeVar

from trainers.host.child import die_only_with
from trainers.memory import is_out_of_memory, oom_kills, volunteer_for_oom_kill

T = TypeVar("T")
"""Plain values, as JSON has them."""
WITHIN_S = 600.0
"""Longest wait for an answer; what is done here takes a second or two."""
OUT_OF_MEMORY = 75
"""Exit code of a child that ran out of memory."""


class AsideFailed(Exception):
    """The child gave no answer; the message says how it ended."""


class AsideKilled(AsideFailed):
    """Somebody killed the child, and not because memory ran out: that says nothing of the work."""


def done_aside(work: Callable[[], dict[str, T]]) -> dict[str, T] | None:
    """What `work` returns, computed in a forked child: this process gets no thread, no memory and no crash from it.

    None where it cannot be known here: memory ran out, or this process has threads and cannot fork safely. A child that
    somebody killed says nothing of the work, so another one does it. Raises `AsideFailed` where the child ended
    otherwise without an answer, `AsideKilled` where it was killed again.
    """
    if len(os.listdir("/proc/self/task")) != 1:
        return None
    try:
        return _in_a_child(work)
    except AsideKilled:
        return _in_a_child(work)


def _in_a_child(work: Callable[[], dict[str, T]]) -> dict[str, T] | None:
    read, write = os.pipe()
    parent, kills = os.getpid(), oom_kills()
    try:
        pid = os.fork()
    except OSError:  # no memory, or too many processes
        os.close(read)
        os.close(write)
        return None
    if pid == 0:
        os.close(read)
        _answer(work, write, parent)
    os.close(write)
    with os.fdopen(read) as pipe:
        is_late = not select.select([pipe], [], [], WITHIN_S)[0]
        if is_late:
            os.kill(pid, signal.SIGKILL)
        answer = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if answer:
        returned: dict[str, T] = json.loads(answer)
        return returned
    if code == OUT_OF_MEMORY or (code == -signal.SIGKILL and oom_kills() > kills):
        return None
    how = f"gave no answer within {WITHIN_S:.0f} s" if is_late else f"ended with code {code}"
    failed = AsideKilled if code == -signal.SIGKILL and not is_late else AsideFailed
    raise failed(f"the process that tried it {how}")


def _answer(work: Callable[[], dict[str, T]], fd: int, parent: int) -> NoReturn:
    """The child's whole life. Its answer is far smaller than a pipe, so it is written at once or not at all."""
    code = 1
    try:
        die_only_with(parent)
        volunteer_for_oom_kill()
        os.write(fd, json.dumps(work()).encode())
        code = 0
    except BaseException as error:  # noqa: BLE001  # nothing may unwind into the host; its log keeps the traceback
        traceback.print_exc()
        code = OUT_OF_MEMORY if is_out_of_memory(error) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
