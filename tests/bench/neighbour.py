"""Two-threaded torch work alone and beside one busy process, with threads that wait by spinning and passively.

Each kind of waiting has a process of its own, because libgomp reads its environment once. They take short turns on the
same two cores, so that other work on the machine treats them alike.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import IO

from tests.bench.tables import Row
from trainers.runtime.cores import usable_cores

TURNS = 7
WAITING = {"spinning": {}, "passive": {"OMP_WAIT_POLICY": "PASSIVE"}}
WORK = """
import sys, time, torch
torch.set_num_threads(2)
rows, weight = torch.randn(256, 384), torch.randn(384, 384)
def work(count):
    for _ in range(count):
        torch.nn.functional.gelu(rows @ weight)
work(100)
for line in sys.stdin:
    began = time.perf_counter()
    work(400)
    print(time.perf_counter() - began, flush=True)
"""
"""Products and activations of a MiniLM step with 256 tokens: each a few hundred microseconds, then all threads wait."""


def rows() -> list[Row]:
    """Medians of ratios, each of two turns next to each other. Raises `RuntimeError` on a machine with one core."""
    if usable_cores() < 2:
        raise RuntimeError("two threads need two cores")
    against_alone: dict[str, list[float]] = {name: [] for name in WAITING}
    passive_alone = []
    with ExitStack() as stack:
        workers = {name: stack.enter_context(_worker(variables)) for name, variables in WAITING.items()}
        for _ in range(TURNS):
            alone = {name: _turn(worker) for name, worker in workers.items()}
            with _busy():
                for name, worker in workers.items():
                    against_alone[name].append(_turn(worker) / alone[name])
            passive_alone.append(alone["passive"] / alone["spinning"])
    return [
        Row("two threads beside one busy process, against alone: spinning", f"{median(against_alone['spinning']):.1f}"),
        Row("the same, passive", f"{median(against_alone['passive']):.1f}", "2.3"),
        Row("alone, passive against spinning", f"{median(passive_alone):.2f}"),
    ]


@contextmanager
def _worker(variables: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "MKL_"))}
    with _pinned([sys.executable, "-c", WORK], {**kept, **variables}) as process:
        yield process


@contextmanager
def _busy() -> Iterator[None]:
    with _pinned([sys.executable, "-c", "while True: pass"], dict(os.environ)):
        yield


@contextmanager
def _pinned(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process on the first two cores that this one may use, killed at the end."""
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(ours)[:2])
    try:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    finally:
        os.sched_setaffinity(0, ours)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _turn(worker: subprocess.Popen[str]) -> float:
    """Seconds of one piece of work; until the next one the process is stopped, for its threads may be spinning."""

    def pipe(given: IO[str] | None) -> IO[str]:
        assert given is not None  # PIPE was asked for
        return given

    worker.send_signal(signal.SIGCONT)
    print("go", file=pipe(worker.stdin), flush=True)
    seconds = float(pipe(worker.stdout).readline())
    worker.send_signal(signal.SIGSTOP)
    return seconds
