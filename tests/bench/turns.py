"""Commands in turns: one runs for a while, with all its processes, and the others stand still.

A machine whose speed drifts (a neighbour on the same hardware, heat) makes a lottery of commands timed one after the
other; in turns it treats them alike. What is timed is a command's own turns, from its start to its end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

TURN_S = 10.0


@dataclass(frozen=True)
class Timed:
    seconds: float
    output: str


@dataclass
class _Contestant:
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    seconds: float = 0.0

    def take_turn(self) -> None:
        _signal_all(self.process.pid, signal.SIGCONT)
        began = time.perf_counter()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(TURN_S)
        self.seconds += time.perf_counter() - began
        if self.process.returncode is None:
            _signal_all(self.process.pid, signal.SIGSTOP)

    def told(self, name: str) -> Timed:
        self.output.seek(0)
        output = self.output.read().decode()
        if self.process.returncode:
            raise RuntimeError(f"{name} ended with {self.process.returncode}:\n{output}")
        return Timed(self.seconds, output)


def in_turns(commands: Mapping[str, Sequence[str]], cwd: Path) -> dict[str, Timed]:
    """Run them all to their ends. Raises `RuntimeError` when one fails, with what it printed."""
    told: dict[str, Timed] = {}
    with ExitStack() as outputs:
        running: dict[str, _Contestant] = {}
        try:
            for name, command in commands.items():
                output = outputs.enter_context(tempfile.TemporaryFile())
                process = subprocess.Popen(command, cwd=cwd, stdout=output, stderr=subprocess.STDOUT)
                running[name] = _Contestant(process, output)
                _signal_all(process.pid, signal.SIGSTOP)
            while running:
                for name, contestant in list(running.items()):
                    contestant.take_turn()
                    if contestant.process.returncode is not None:
                        told[name] = running.pop(name).told(name)
        finally:
            for contestant in running.values():
                _signal_all(contestant.process.pid, signal.SIGKILL)
                contestant.process.wait()
    return told


def _signal_all(root: int, what: signal.Signals) -> None:
    """To a process and all its descendants; again until no new ones turn up, as they fork meanwhile."""
    done: set[int] = set()
    while new := _descendants(root) - done:
        for pid in new:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, what)
        done |= new


def _descendants(root: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found, front = set(), [root]
    while front:
        pid = front.pop()
        found.add(pid)
        front += children.get(pid, [])
    return found
