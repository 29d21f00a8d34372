"""How a machine's cores are best shared: trials side by side times threads of each, and how many rows go at a time.

Layouts take turns of a few seconds. Each trial is a forked child, as in a sweep, and sleeps while it is not its turn.
Micro-batches take turns step by step on the same rows, and so do one thread and two. They are compared by CPU time, in
which other work on the machine counts little. How long one thread waits for the other is not in it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from tests.bench.steps import CASES, MINILM, Case, real_spec
from tests.bench.tables import Row
from trainers.model.base import Base
from trainers.model.load import load_base
from trainers.protocol.events import PreparedData
from trainers.protocol.trial_spec import TrialSpec
from trainers.runtime.cores import usable_cores
from trainers.training.trainer import Trainer

SMOLLM2 = CASES["SmolLM2-8"]
MICRO = {f"MiniLM-{size}": replace(MINILM, batch_size=size) for size in (8, 16, 32)} | {"SmolLM2-8": SMOLLM2}
"""Whole batches against their halves and quarters."""
LAYOUTS = {"MiniLM-16": MICRO["MiniLM-16"], "SmolLM2-2": replace(SMOLLM2, batch_size=2, max_length=384)}
"""A trial on each core, against fewer trials with more threads."""
PRECISIONS = ("fp32", "bf16")
TURNS = 7
TURN_S = 3.0
WARM_UP = 1
"""Steps that are not counted."""


def rows(steps: int) -> list[Row]:
    """Both tables. Raises `RuntimeError` where one core leaves nothing to share."""
    if usable_cores() < 2:
        raise RuntimeError("two layouts need two cores")
    torch.set_num_threads(1)
    told = []
    for name, case in LAYOUTS.items():
        told += [*_layout_rows(name, case), _thread_row(name, case, steps)]
    for name, case in MICRO.items():
        told += [row for precision in PRECISIONS for row in _micro_rows(name, case, precision, steps)]
    return told


def layouts(cores: int) -> list[tuple[int, int]]:
    """(trials, threads of each): all cores with one, two and four threads a trial."""
    return [(cores // threads, threads) for threads in (1, 2, 4) if cores >= threads]


def _layout_rows(name: str, case: Case) -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        spec, found = _spec(case, Path(scratch), case.batch_size)
        base = load_base(spec.workload, found.labels)
        plain, *others = layouts(usable_cores())
        workers = {
            (n, threads): [_worker(base, spec, found, threads) for _ in range(n)] for n, threads in (plain, *others)
        }
        turns = []
        for turn in range(TURNS):
            order = [plain, *others] if turn % 2 else [*others, plain]
            turns.append({layout: _steps_per_second(workers[layout]) for layout in order})
        for pipe in (pipe for pipes in workers.values() for pipe in pipes):
            pipe.send(False)
    return [
        Row(
            f"{name}: steps a second, {layout[0]} x {layout[1]} threads against {plain[0]} x {plain[1]}",
            _quartiles([turn[layout] / turn[plain] for turn in turns]),
        )
        for layout in others
    ]


def _worker(base: Base, spec: TrialSpec, found: PreparedData, threads: int) -> Connection:
    """The pipe to a trial that takes steps for `TURN_S` at each True, and ends at False."""
    context = get_context("fork")
    ours, theirs = context.Pipe()
    context.Process(target=_train_in_turns, args=(theirs, base, spec, found, threads), daemon=True).start()
    theirs.close()
    ours.recv()
    return ours


def _train_in_turns(pipe: Connection, base: Base, spec: TrialSpec, found: PreparedData, threads: int) -> None:
    torch.set_num_threads(threads)
    trainer = Trainer(base, spec, Path(found.tokens_dir))
    trainer.step(next(trainer.batches))
    pipe.send("ready")
    while pipe.recv():
        began, steps = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < TURN_S:
            trainer.step(next(trainer.batches))
            steps += 1
        pipe.send(steps / passed)


def _steps_per_second(pipes: list[Connection]) -> float:
    for pipe in pipes:
        pipe.send(True)
    return float(sum(pipe.recv() for pipe in pipes))


def _micro_rows(name: str, case: Case, precision: str, steps: int) -> list[Row]:
    whole = case.batch_size
    sizes = [whole, whole // 2, whole // 4]
    with tempfile.TemporaryDirectory() as scratch:
        trainers = {}
        for size in sizes:
            spec, found = _spec(case, Path(scratch), size)
            base = load_base(replace(spec.workload, precision=precision), found.labels)
            trainers[size] = Trainer(base, replace(spec, workload=base.workload), Path(found.tokens_dir))
        seconds: dict[int, list[float]] = {size: [] for size in sizes}
        for step in range(WARM_UP + steps):
            for size in sizes if step % 2 else sizes[::-1]:
                seconds[size].append(_cpu_seconds(trainers[size], next(trainers[size].batches)))
    told = []
    for size in sizes[1:]:
        shares = [one / other for one, other in zip(seconds[size], seconds[whole], strict=True)][WARM_UP:]
        told.append(
            Row(f"{name}, {precision}: CPU time of a step, {size} rows at a time against {whole}", _quartiles(shares))
        )
    return told


def _thread_row(name: str, case: Case, steps: int) -> Row:
    with tempfile.TemporaryDirectory() as scratch:
        spec, found = _spec(case, Path(scratch), case.batch_size)
        trainer = Trainer(load_base(spec.workload, found.labels), spec, Path(found.tokens_dir))
        shares = []
        for step in range(WARM_UP + steps):
            rows, seconds = next(trainer.batches), {}
            for threads in (1, 2) if step % 2 else (2, 1):
                torch.set_num_threads(threads)
                seconds[threads] = _cpu_seconds(trainer, rows)
            shares.append(seconds[2] / seconds[1])
    torch.set_num_threads(1)
    return Row(f"{name}: CPU time of a step, two threads against one", _quartiles(shares[WARM_UP:]))


def _cpu_seconds(trainer: Trainer, rows: list[int]) -> float:
    """What a step takes of all threads together."""
    began = time.process_time()
    trainer.step(rows)
    return time.process_time() - began


def _spec(case: Case, folder: Path, micro_batch_size: int) -> tuple[TrialSpec, PreparedData]:
    spec, found = real_spec(case, folder)
    return replace(spec, settings={**spec.settings, "micro_batch_size": micro_batch_size}), found


def _quartiles(values: list[float]) -> str:
    """The median, and the quartiles in brackets."""
    low, _, high = statistics.quantiles(values, n=4)
    return f"{statistics.median(values):.2f} ({low:.2f} to {high:.2f})"
