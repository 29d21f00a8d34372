"""How many trials run side by side, and what each may use."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpo.executors.base import Executor
from hpo.executors.environment import Environment
from hpo.executors.free_memory import available_memory_mb
from trainers.protocol.events import PreparedData, Probed
from trainers.protocol.requests import Request
from trainers.runtime.cores import usable_cores

AMPLE_MB = 4096
"""With so much memory free for each core, nobody needs to ask what a trial takes."""
AMPLE_FOR = 60_000_000
"""Parameters of a base model for which that holds; a larger one has more to keep for each token."""
MARGIN = 1.25
"""A trial may need that much more, or less, than a few seconds of it showed: `tests/bench/training.md` has by how much
it was off on a CPU. Never measured on a GPU."""


@dataclass(frozen=True)
class Slots:
    """How many requests that train run at a time (one a slot), and what each may use."""

    jobs: int
    threads: int
    """Per trial: two threads that share a core are far slower than one."""
    gpus: int = 0
    trials_per_request: int = 1
    """Trials that share a slot, in one process."""
    devices_per_trial: int = 1
    """The most that a trial may have. One with fewer leaves the others of its slot alone."""

    def open(self) -> Sequence[int]:
        """The slots that there are now."""
        return range(self.jobs)

    def devices(self, slot: int) -> tuple[str, ...]:
        """Of the trials in a slot; see `devices_of`."""
        return devices_of(slot, self.gpus, self.devices_per_trial)

    def environment(self, slot: int) -> Environment | None:
        """Of a slot's machine, where that is not this one."""
        return None

    def submit(self, executor: Executor, slot: int, request: Request) -> int:
        """Begin a request in a slot."""
        return executor.submit(request)


def devices_of(slot: int, gpus: int, devices: int) -> tuple[str, ...]:
    """Of the trials in a slot of a machine, `devices` for each: neighbouring GPUs, `cuda:N`, in turn where there are
    more slots than such groups; without GPUs `cpu`, once for each process of a trial."""
    if not gpus:
        return ("cpu",) * devices
    first = slot % groups_of(gpus, devices) * devices
    return tuple(f"cuda:{gpu}" for gpu in range(first, min(first + devices, gpus)))


def groups_of(gpus: int, devices: int) -> int:
    """How many groups of so many GPUs there are; one of all, where they are fewer."""
    return max(1, gpus // devices)


def sharing_a_memory(devices: Sequence[str]) -> int:
    """How many of a trial's processes share one memory: all on a CPU, and one on each GPU."""
    return devices.count("cpu") or 1


def first_devices(inspection: PreparedData, devices: int = 1) -> tuple[str, ...]:
    """Of a request that runs outside any slot: the first GPUs where there are any."""
    return Slots(1, 1, inspection.gpus, devices_per_trial=devices).devices(0)


def choose_slots(
    inspection: PreparedData, planned: int, jobs: int | None, threads: int | None, probe: Callable[[], Probed | None],
    devices: int = 1, most_mb: float = math.inf,
) -> Slots:  # fmt: skip
    """As asked for; else a trial per core, or as many on each GPU, as memory allows.

    Threads of one trial wait for each other: one trial of two threads took 1.26 of the time of two with one for a queue
    (`python -m tests.bench makespan`). A trial gets more only where memory, or the number of trials, leaves cores free.

    `probe` measures the largest trial of the space, or finds that it does not fit (None): then each has a device for
    itself. It is asked only where memory may be short.

    `devices` is the most that one trial has: so many GPUs, or processes with as much memory and as many threads each.
    `most_mb` is what all trials together may take, or those on one GPU.
    """
    if jobs is None:
        wanted = min(max(1, cores() // devices), planned)
        if inspection.gpus:
            most = gpu_jobs(inspection, probe, devices, most_mb)
        else:
            most = cpu_jobs(wanted, probe, min(available_memory_mb(), most_mb), devices, inspection.parameters)
        jobs = max(1, min(most, planned))
    return Slots(jobs, threads or max(1, cores() // (jobs * devices)), inspection.gpus, devices_per_trial=devices)


def cpu_jobs(
    wanted: int, probe: Callable[[], Probed | None], available_mb: float, devices: int = 1, parameters: int = 0
) -> int:  # fmt: skip
    """As many trials as wanted, or as many as fit into `available_mb`; `parameters` are the base model's."""
    if wanted <= 1 or is_ample(wanted * devices, available_mb, parameters):
        return wanted
    largest = probe()
    return 1 if largest is None else min(wanted, int(available_mb / (largest.memory_mb * devices * MARGIN)))


def probes_at_once(inspection: PreparedData) -> int:
    """One for each core, as trials will run, where memory is ample; else in turn, and on GPUs too: each measures its
    own memory there."""
    return cores() if not inspection.gpus and is_ample(cores(), available_memory_mb(), inspection.parameters) else 1


def is_ample(jobs: int, available_mb: float, parameters: int = 0) -> bool:
    """Whether so many trials fit without a probe that measures one; `parameters` are the base model's."""
    return available_mb >= ample_mb(parameters) * jobs


def ample_mb(parameters: int) -> float:
    """What one trial is taken to need where none was measured; `parameters` are the base model's."""
    return AMPLE_MB * max(1.0, parameters / AMPLE_FOR)


def gpu_jobs(
    inspection: PreparedData, probe: Callable[[], Probed | None], devices: int = 1, most_mb: float = math.inf
) -> int:  # fmt: skip
    """On each GPU, or group of so many, what fits into its memory and into `most_mb`, but no more processes than cores
    to feed them."""
    largest = probe()
    per_gpu = 1 if largest is None else int(min(inspection.gpu_memory_mb, most_mb) / (largest.memory_mb * MARGIN))
    return groups_of(inspection.gpus, devices) * max(1, min(per_gpu, cores() // inspection.gpus))


def cores() -> int:
    """CPU cores that this process may use now; see `usable_cores`."""
    return usable_cores()
