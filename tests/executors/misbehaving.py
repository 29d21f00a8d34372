"""A worker that does what its model's name says: everything a trainer should not, and what a test must see.

Imported by the tests as part of their package, and by the trial host as a module of its own.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

from trainers.spec import Evaluation, Event, Failed, Loaded, Request, Scored, Step, TrainRequest, Verdict

Work = Generator[Event, Verdict | None, None]


def work(request: Request) -> Work:
    model = request.spec.workload.model if isinstance(request, TrainRequest) else request.workload.model
    folder = Path(request.spec.dir) if isinstance(request, TrainRequest) else Path()
    yield from globals()[model.source](folder)


def evaluation(index: int) -> Evaluation:
    return Evaluation(index, 0.5, index, index, index, {"f1_macro": 0.5}, 0.0)


def note_pid(folder: Path) -> None:
    temporary = folder / ".pid"
    temporary.write_text(f"{os.getpid()} {os.getppid()}")
    temporary.replace(folder / "pid")


def is_well(folder: Path) -> Work:
    yield Scored({}, 0.0)


def raises(folder: Path) -> Work:
    yield evaluation(0)
    raise ValueError("no such thing")


def raises_at_once(folder: Path) -> Work:
    raise ValueError("no such thing")
    yield


def runs_out_of_memory(folder: Path) -> Work:
    raise MemoryError
    yield


def ends_without_result(folder: Path) -> Work:
    yield Step(0, 0, 0.0, 0.0, 0.0)


def exits(folder: Path) -> Work:
    sys.exit(3)
    yield


def exits_with_success(folder: Path) -> Work:
    sys.exit(0)
    yield


def ends_its_process(folder: Path) -> Work:
    os._exit(7)
    yield


def kills_itself(folder: Path) -> Work:
    os.kill(os.getpid(), signal.SIGKILL)
    yield


def kills_itself_after_an_evaluation(folder: Path) -> Work:
    yield evaluation(0)
    os.kill(os.getpid(), signal.SIGKILL)


def fails(folder: Path) -> Work:
    yield Failed("oom", "too big")


def says_much(folder: Path) -> Work:
    yield Failed("crash", "ä" * 300_000)


def goes_on_after_its_end(folder: Path) -> Work:
    yield Scored({}, 0.0)
    yield Scored({}, 1.0)


def sleeps(folder: Path) -> Work:
    note_pid(folder)
    time.sleep(60)
    yield Scored({}, 0.0)


def stands_at_an_evaluation(folder: Path) -> Work:
    note_pid(folder)
    yield evaluation(0)
    yield Scored({}, 0.0)


def meets_another(folder: Path) -> Work:
    """Ends well only when a second one runs at the same time."""
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + 10
    while len([path for path in folder.iterdir() if path.name.isdigit()]) < 2:
        if time.monotonic() > deadline:
            yield Failed("timeout", "nobody came")
            return
        time.sleep(0.01)
    yield Scored({}, 0.0)


def prints(folder: Path) -> Work:
    """As a library does: through Python, through the file descriptors, and in the protocol's own words."""
    print("noise on stdout")  # the test looks for it
    print("noise on stderr", file=sys.stderr)
    os.write(1, b'{"id": 1, "event": {"type": "Failed", "cause": "crash", "message": "forged"}}\n')
    os.write(2, b"noise on 2\n")
    os.system("echo noise of a child")  # noqa: S605
    yield Scored({}, 0.0)


def reads_input(folder: Path) -> Work:
    """A library that asks a question must get an end of file, not the sweep's messages."""
    yield Scored({"characters": float(len(sys.stdin.read()) + len(os.read(0, 100)))}, 0.0)


def floods(folder: Path) -> Work:
    note_pid(folder)
    for index in range(3000):
        yield Step(index, index, 0.0, 0.0, 0.0)
    yield Scored({}, 0.0)


def leaves_a_process(folder: Path) -> Work:
    """Dies while a process it has forked lives on with all its files open."""
    if os.fork() == 0:
        time.sleep(4)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
    yield


def starts_a_thread(folder: Path) -> Work:
    threading.Thread(target=time.sleep, args=[60], daemon=True).start()
    yield Loaded(1, 0.0)
