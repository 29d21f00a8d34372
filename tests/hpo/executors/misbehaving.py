"""A worker that does what its model's name says: everything a trainer should not, and what a test must see.

Imported by the tests as part of their package, and by the trial host as a module of its own.
"""

from __future__ import annotations

import atexit
import dataclasses
import errno
import gc
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from trainers.protocol.events import PAUSED, Evaluation, Event, Failed, Loaded, Scored, Step, TrialEvent
from trainers.protocol.requests import Request, Train, Verdict

Work = Generator[Event, Verdict | None, None]
loaded_by: list[int] = []
"""Processes that loaded a model: in a host's child, the host."""


def work(request: Request) -> Work:
    model = request.specs[0].workload.model if isinstance(request, Train) else request.workload.model
    if isinstance(request, Train) and len(request.specs) > 1:
        yield from globals()[model.source](request)
    elif isinstance(request, Train):
        yield from told_of(request.spec.number, globals()[model.source](Path(request.spec.dir)))
    else:
        yield from globals()[model.source](Path(request.workload.cache_dir))


def told_of(trial: int, behaviour: Work) -> Work:
    """A behaviour's events with the number of its trial; whatever ends it ends the request."""
    verdict = None
    while True:
        try:
            event = behaviour.send(verdict)
        except StopIteration:
            return
        verdict = yield dataclasses.replace(event, trial=trial) if isinstance(event, TrialEvent) else event


def evaluation(index: int) -> TrialEvent:
    return TrialEvent(0, Evaluation(index, 0.5, index, index, index, {"f1_macro": 0.5}, 0.0))


def step(index: int) -> TrialEvent:
    return TrialEvent(0, Step(index, index, 0.0, 0.0, 0.0))


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.005)


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


def cannot_allocate(folder: Path) -> Work:
    """As torch's allocator says it."""
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: ...")
    yield


def ends_without_result(folder: Path) -> Work:
    yield step(0)


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
        yield step(index)
    yield Scored({}, 0.0)


def leaves_a_process(folder: Path) -> Work:
    """Dies while a process it has forked lives on with all its files open."""
    if (left := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    (folder / "left").write_text(str(left))
    os.kill(os.getpid(), signal.SIGKILL)
    yield


def ends_a_worker_of_its_own(folder: Path) -> Work:
    """As libraries do with those that they have forked: by SIGTERM."""
    read, write = os.pipe()
    if (worker := os.fork()) == 0:
        os.write(write, b"!")
        time.sleep(60)
        os._exit(0)
    os.read(read, 1)
    os.kill(worker, signal.SIGTERM)
    yield Scored({"signal": float(os.waitpid(worker, 0)[1])}, 0.0)


def takes_long_to_take_down(folder: Path) -> Work:
    atexit.register(time.sleep, 20)
    yield Loaded(1, 0.0)


def starts_a_thread(folder: Path) -> Work:
    threading.Thread(target=time.sleep, args=[60], daemon=True).start()
    yield Loaded(1, 0.0)


# --- verdicts ------------------------------------------------------------------------------------------


def steps(folder: Path) -> Work:
    """Until it is told something; then says what."""
    note_pid(folder)
    for index in itertools.count():
        if verdict := (yield step(index)):
            yield PAUSED if verdict == "pause" else Scored({verdict: float(index)}, 0.0)
        time.sleep(0.002)


def step_in_turn(request: Train) -> Work:
    """Several trials, until one takes a verdict; then says which one and what."""
    while True:
        for spec in request.specs:
            if verdict := (yield dataclasses.replace(step(0), trial=spec.number)):
                yield Scored({f"{verdict} {spec.number}": 1.0}, 0.0)
        time.sleep(0.002)


def evaluates(folder: Path) -> Work:
    """Five times, unless it is told to stop or pause; then says at which one. Begins when told by a file."""
    note_pid(folder)
    wait_for(folder / "begin")
    for index in range(5):
        verdict = yield evaluation(index)
        if verdict != "go":
            yield PAUSED if verdict == "pause" else Scored({str(verdict): float(index)}, 0.0)
    yield Scored({"go": 5.0}, 0.0)


# --- memory --------------------------------------------------------------------------------------------


def tells_its_oom_score(folder: Path) -> Work:
    child, host = (Path(f"/proc/{pid}/oom_score_adj").read_text() for pid in (os.getpid(), os.getppid()))
    yield Scored({"child": float(child), "host": float(host)}, 0.0)


def counts_oom_kills_in_a_file(folder: Path) -> Work:
    """Loaded into the host, which from then on takes the file for the kernel's counter."""
    (folder / "oom_kills").write_text("3")
    sys.modules["__main__"].oom_kills = lambda: int((folder / "oom_kills").read_text())  # type: ignore[attr-defined]
    yield Loaded(1, 0.0)


def is_killed_by_the_kernel(folder: Path | None) -> None:
    """The counter rises, then the process dies, as the kernel does it."""
    if folder:
        path = folder / "oom_kills"
        path.write_text(str(int(path.read_text()) + 1))
    os.kill(os.getpid(), signal.SIGKILL)


def is_killed_for_memory(folder: Path) -> Work:
    is_killed_by_the_kernel(folder.parent)
    yield


def is_killed_for_memory_after_an_evaluation(folder: Path) -> Work:
    yield evaluation(0)
    is_killed_by_the_kernel(folder.parent)


def is_killed_for_memory_before_it_is_heard(folder: Path) -> Work:
    """Its last words are read only after its death."""
    note_pid(folder)
    os.kill(os.getppid(), signal.SIGSTOP)
    yield step(0)
    is_killed_by_the_kernel(folder.parent)


def is_killed_by_a_person_after_others_were_for_memory(folder: Path) -> Work:
    path = folder.parent / "oom_kills"
    path.write_text(str(int(path.read_text()) + 1))
    yield evaluation(0)
    yield evaluation(1)
    is_killed_by_the_kernel(None)


def makes_forks_fail(folder: Path) -> Work:
    """The first one after it."""

    def fail() -> int:
        os.fork = fork
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    fork, os.fork = os.fork, fail
    yield Loaded(1, 0.0)


def looks_at_its_garbage(folder: Path) -> Work:
    yield Scored({"enabled": float(gc.isenabled()), "frozen": float(gc.get_freeze_count())}, 0.0)


def finds_the_disk_full(folder: Path) -> Work:
    """Nothing can be written any more, the traceback not either."""
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    os.dup2(full, 2)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    yield


# --- much ----------------------------------------------------------------------------------------------


def has_many_labels(folder: Path) -> Work:
    """A metric for each of thousands of labels, more often than a pipe can hold."""
    note_pid(folder)
    for index in range(8):
        metrics = {f"f1/label-{label:05d}": label / 7 for label in range(5000)}
        yield TrialEvent(0, Evaluation(index, 0.5, index, index, index, metrics, 0.0))
    yield Scored({}, 0.0)


# --- hosts that end ------------------------------------------------------------------------------------


def loads(folder: Path) -> Work:
    loaded_by.append(os.getpid())
    with (folder / "loads").open("a") as file:
        file.write(f"{os.getpid()}\n")
    yield Loaded(1, 0.0)


def loads_once(folder: Path) -> Work:
    """A host that loads a second time is killed."""
    if (folder / "loads").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    yield from loads(folder)


def loads_the_second_time(folder: Path) -> Work:
    """The host that loads first is killed."""
    if not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    yield from loads(folder)


def never_loads(folder: Path) -> Work:
    with (folder / "tried").open("a") as file:
        file.write(f"{os.getpid()}\n")
    os.kill(os.getpid(), signal.SIGKILL)
    yield


def sleeps_while_it_loads(folder: Path) -> Work:
    note_pid(folder)
    time.sleep(60)
    yield Loaded(1, 0.0)


def kills_its_host(folder: Path) -> Work:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
    yield


def is_alone_and_warm(folder: Path) -> Work:
    """Says whether its host has loaded, and whether the process of an earlier attempt still runs."""
    earlier: Any = (folder / "pid").read_text().split()[0]
    state = Path(f"/proc/{earlier}/stat")
    is_there = state.exists() and state.read_text().rpartition(")")[2].split()[0] not in "ZX"
    yield Scored({"warm": float(os.getppid() in loaded_by), "alone": float(not is_there)}, 0.0)


def hangs_the_first_time(folder: Path) -> Work:
    if (folder / "pid").exists():
        yield Failed("diverged", "but lives")
    yield from sleeps(folder)
