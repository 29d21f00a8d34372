"""One trial in two processes of one thread against one process of one thread, in turns of a few seconds.

Beside other work on the machine the time of a turn says little: what the cores were given counts then. So the CPU time
of a step is compared too, that of the slower process with that of the only one: how long they wait for each other is
not in it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path

import torch

from tests.bench.steps import MINILM, real_spec
from tests.bench.tables import Row
from trainers.model.base import Base
from trainers.model.load import load_base
from trainers.protocol.events import PreparedData
from trainers.protocol.trial_spec import TrialSpec
from trainers.training.follow import follow
from trainers.training.ranks import join
from trainers.training.trainer import Trainer
from trainers.training.usage import cpu_seconds

SIZES = (16, 32)
"""Rows of a batch."""
TURNS = 9
TURN_S = 4.0


@dataclass(frozen=True)
class _Turn:
    steps_per_s: float
    cpu_s: float
    """Of a step, in the process that took most."""


@dataclass(frozen=True)
class _Begun:
    processes: Sequence[ForkProcess]
    leader: Connection
    """The pipe to the first process: it takes steps for `TURN_S` at each message, and answers with a `_Turn`."""


def rows() -> list[Row]:
    torch.set_num_threads(1)
    return [row for size in SIZES for row in _rows(size)]


def _rows(size: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        spec, found = real_spec(replace(MINILM, batch_size=size), Path(scratch))
        spec = replace(spec, settings={**spec.settings, "micro_batch_size": size})
        base = load_base(spec.workload, found.labels)
        begun = {count: _begun(base, spec, found, count, Path(scratch, str(count))) for count in (1, 2)}
        turns = []
        for turn in range(TURNS):
            taken = {}
            for count in (1, 2) if turn % 2 else (2, 1):
                begun[count].leader.send(True)
                taken[count] = begun[count].leader.recv()
            turns.append(taken)
        for process in (process for trial in begun.values() for process in trial.processes):
            process.kill()
            process.join()
    name = f"MiniLM-{size}: two processes against one"
    return [
        Row(f"{name}, steps a second", _quartiles([t[2].steps_per_s / t[1].steps_per_s for t in turns]), ">= 1.6"),
        Row(f"{name}, CPU time of a step", _quartiles([t[1].cpu_s / t[2].cpu_s for t in turns]), ">= 1.6"),
    ]


def _begun(base: Base, spec: TrialSpec, found: PreparedData, count: int, store: Path) -> _Begun:
    """A trial in `count` processes, ready for its first turn."""
    context = get_context("fork")
    ours, theirs = context.Pipe()
    spec = replace(spec, devices=("cpu",) * count)
    given = (base, spec, found, store, theirs)
    processes = [context.Process(target=_rank, args=(number, *given), daemon=True) for number in range(count)]
    for process in processes:
        process.start()
    ours.recv()
    return _Begun(processes, ours)


def _rank(number: int, base: Base, spec: TrialSpec, found: PreparedData, store: Path, pipe: Connection) -> None:
    ranks = join(number, len(spec.devices), store, "cpu")
    if number:
        follow(base, spec, Path(found.tokens_dir), ranks)
    trainer = Trainer(base, spec, Path(found.tokens_dir), ranks)
    trainer.synchronize()
    trainer.step(next(trainer.batches))
    pipe.send("ready")
    while pipe.recv():
        before, began, steps = _used(ranks.pids), time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < TURN_S:
            trainer.step(next(trainer.batches))
            steps += 1
        used = max(now - then for now, then in zip(_used(ranks.pids), before, strict=True))
        pipe.send(_Turn(steps / passed, used / steps))


def _used(pids: Sequence[int]) -> list[float]:
    return [cpu_seconds(pid) for pid in pids]


def _quartiles(values: list[float]) -> str:
    """The median, and the quartiles in brackets."""
    low, _, high = statistics.quantiles(values, n=4)
    return f"{statistics.median(values):.2f} ({low:.2f} to {high:.2f})"
