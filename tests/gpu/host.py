"""A real trial host beside a GPU: it leaves CUDA alone; its trials start warm, run side by side, leave no memory, and
go on after a kill as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hpo.executors.local import LocalExecutor
from tests.gpu import out_of_memory
from tests.gpu.place import Place
from tests.gpu.rows import Row, held, measured
from tests.gpu.trained import trained
from tests.gpu.trials import Prepared, random_llama, usage_of
from trainers.protocol.events import Loaded, Resumed, TrialResult
from trainers.protocol.requests import Import, Load
from trainers.protocol.trial_spec import TrialSpec

SIDE_BY_SIDE = 3
FREED_WITHIN_S = 5.0
LEFT_MB = 32.0
"""What a driver may keep of a process that has ended."""
NOISE = 3.0
"""How many times as far apart as two undisturbed trials a resumed one may be, where kernels add up in any order."""


def run(place: Place) -> Iterator[Row]:
    """One host for all; a Llama of 0.1 B."""
    given = random_llama(place.folder, *place.size((768, 12, 12), (32, 2, 4)), [place.size(128, 12)] * 320)
    found = replace(given.found, gpus=0 if place.rehearses else 1)
    given = replace(given, found=found)
    executor = LocalExecutor(place.folder / "host.log")
    try:
        began = time.monotonic()
        for request in (Import(), Load(given.workload, None), Load(given.workload, found)):
            executor.submit(request)
            message = executor.wait()
            if message is None or not isinstance(message[1], Loaded):
                yield held("the host loads a base model", False, str(message))
                return
        yield measured("a host with a base model", f"{time.monotonic() - began:.1f} s after its start")
        yield _untouched("before its first fork the host has left CUDA alone", executor._host.pid)
        yield from _warm_starts(executor, given, place)
        yield from _side_by_side(executor, given, place)
        yield from _killed_and_resumed(executor, given, place)
        yield from out_of_memory.rows(executor, place)
        yield _untouched("after all its trials the host has left CUDA alone", executor._host.pid)
    finally:
        executor.close()


def _untouched(what: str, pid: int) -> Row:
    """By what the process has open and mapped: CUDA's memory driver is opened by nothing but CUDA's start."""
    process = Path(f"/proc/{pid}")
    opened = set()
    for entry in os.listdir(process / "fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            opened.add(os.readlink(process / "fd" / entry))
    devices = sorted(name for name in opened if name.startswith("/dev/nvidia"))
    has_driver = "libcuda.so" in (process / "maps").read_text()
    threads = sorted((task / "comm").read_text().strip() for task in (process / "task").iterdir())
    found = f"threads: {', '.join(threads)}; open: {', '.join(devices) or 'no device'}"
    found += "; libcuda is loaded" if has_driver else ""
    return held(what, len(threads) == 1 and not any("uvm" in name for name in devices), found)


def _warm_starts(executor: LocalExecutor, given: Prepared, place: Place) -> Iterator[Row]:
    """One trial after the other: seconds to the first step, and the memory that is left afterwards."""
    before = _used_mb(place)
    firsts = []
    for number in range(place.size(4, 1)):
        ran = trained(executor, given, [_spec(given, place, f"warm{number}", batches=3)])[0]
        if ran.result is None:
            yield held("a trial trains in the host's child", False, str(ran.failed))
            return
        firsts.append(ran.first_step_s)
    median = statistics.median(firsts)
    yield measured("from submission to first step", f"{median:.2f} s (median of {len(firsts)})", first_step_s=median)
    yield _freed("memory of trials that have ended is free again", before, place)


def _freed(what: str, before_mb: float, place: Place) -> Row:
    deadline = time.monotonic() + FREED_WITHIN_S
    while (left := _used_mb(place) - before_mb) > LEFT_MB and time.monotonic() < deadline:
        time.sleep(0.1)
    return held(what, left <= LEFT_MB, f"{left:.0f} MB more than before", left_mb=left)


def _side_by_side(executor: LocalExecutor, given: Prepared, place: Place) -> Iterator[Row]:
    """So many trials at once, against the same ones in turn."""
    before = _used_mb(place)
    count, batches = place.size((SIDE_BY_SIDE, 60), (2, 2))

    def specs(name: str) -> list[TrialSpec]:
        made = [_spec(given, place, f"{name}{n}", batches=batches) for n in range(count)]
        return [replace(spec, seed=n, number=n) for n, spec in enumerate(made)]

    began = time.monotonic()
    in_turn = [trained(executor, given, [spec])[0] for spec in specs("turn")]
    between = time.monotonic()
    together_specs = specs("beside")
    at_once = trained(executor, given, together_specs)
    ended = time.monotonic()
    ratio = (ended - between) / (between - began)
    memory = max((gpu.get("memory_mb", 0.0) for s in together_specs for u in usage_of(s) for gpu in u.get("gpus", [])),
                 default=0.0)  # fmt: skip
    what = f"{count} trials side by side on one GPU"
    if any(ran.result is None for ran in (*in_turn, *at_once)):
        yield held(what, False, str([ran.failed for ran in (*in_turn, *at_once)]))
        return
    found = f"{ratio:.2f} of the time that they take in turn; the GPU holds {memory:.0f} MB"
    yield measured(what, found, time_ratio=ratio, memory_mb=memory)
    pairs = [(a.result, b.result) for a, b in zip(in_turn, at_once, strict=True)]
    off = max(abs(_loss(a) - _loss(b)) / _loss(a) for a, b in pairs if a and b)
    same = sum(a.adapter_sha256 == b.adapter_sha256 for a, b in pairs if a and b)
    yield held("they learn what they learn alone", off <= 1e-2, f"{same} of {len(pairs)} to the bit; {off:.1e} apart")
    yield _freed("and leave no memory", before, place)


def _killed_and_resumed(executor: LocalExecutor, given: Prepared, place: Place) -> Iterator[Row]:
    """kill -9 between two evaluations. Two undisturbed trials say how far apart this GPU's kernels leave equal ones."""
    batches = place.size(40, 8)

    def spec(name: str) -> TrialSpec:
        return _spec(given, place, name, batches=batches, evaluations=4, lora_dropout=0.1)

    first, again = (trained(executor, given, [spec(name)])[0].result for name in ("whole", "again"))
    killed = spec("killed")
    cut = trained(executor, given, [killed], kill_at=2)[0]
    resumed = trained(executor, given, [killed])[0]
    went_on = any(isinstance(report, Resumed) for _, report in resumed.reports)
    yield held("kill -9 ends a trial, which goes on from its checkpoint",
               cut.result is None and went_on and resumed.result is not None, str(resumed.failed or ""))  # fmt: skip
    if not (first and again and resumed.result):
        return
    is_exact = first.adapter_sha256 == again.adapter_sha256
    is_same = first.adapter_sha256 == resumed.result.adapter_sha256
    noise, off = abs(_loss(first) - _loss(again)), abs(_loss(first) - _loss(resumed.result))
    if is_exact or is_same:
        found = "to the bit" if is_same else f"{off:.1e} apart, though two undisturbed trials are equal to the bit"
    else:
        found = f"not to the bit: {off:.1e} apart, and two undisturbed ones {noise:.1e}"
    within = is_same or (not is_exact and off <= NOISE * max(noise, 1e-6 * _loss(first)))
    yield held("a resumed trial ends as an undisturbed one", within, found, apart=off, undisturbed_apart=noise)


def _spec(given: Prepared, place: Place, name: str, *, batches: int, **settings: Any) -> TrialSpec:
    chosen = {"batch_size": 8, "micro_batch_size": 8, "evaluations": 1, "logging_steps": 1, **settings}
    spec = given.spec(place.folder / name, place.device, precision=place.size("bf16", "fp32"),
                      examples=8 * batches, **chosen)  # fmt: skip
    return replace(spec, metric="loss", direction="minimize")


def _loss(result: TrialResult) -> float:
    """Of the best evaluation, which is the trial's value."""
    return result.metrics["loss"]


def _used_mb(place: Place) -> float:
    """Of the whole GPU, by any process; 0 on a CPU."""
    if place.rehearses:
        return 0.0
    free, total = torch.cuda.mem_get_info(place.device)
    return float(total - free) / 1e6
