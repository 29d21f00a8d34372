"""Slots on machines that come and go: each has as many as fit there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter

from hpo.errors import ClusterError
from hpo.executors.base import Executor, NodesExecutor, Place
from hpo.executors.environment import Environment
from hpo.trials.slots import MARGIN, Slots, ample_mb, devices_of, groups_of, is_ample
from trainers.protocol.events import Probed
from trainers.protocol.requests import Request

LOOKS_EVERY_S = 1.0
WITHOUT_SLOT_S = 120.0
"""So long a sweep waits where machines are there, and none of them takes its trials."""


@dataclass(frozen=True)
class NodeSlots(Slots):
    """`jobs` is how many there were as the session began: what its length is estimated by. Threads are the same on all
    machines and for all trials, whoever joins: numbers depend on them."""

    nodes: NodesExecutor = field(kw_only=True)
    trials_on: Callable[[Place], int] = field(kw_only=True)
    """How many trials a machine takes."""
    _numbers: dict[tuple[str, int], int] = field(default_factory=dict, kw_only=True)
    """A machine and which trial on it -> slot."""
    _without_slot: list[float] = field(default_factory=list, kw_only=True)
    """Since when (by the monotonic clock) there have been machines and no slot; empty otherwise."""

    def open(self) -> list[int]:
        """The slots that there are now. Raises `ClusterError` where for long no machine has taken trials."""
        slots = sorted(self._now())
        if slots or not self.nodes.places():  # without any, the executor says so
            self._without_slot.clear()
        elif not self._without_slot:
            self._without_slot.append(time.monotonic())
        elif time.monotonic() - self._without_slot[0] > WITHOUT_SLOT_S:
            raise ClusterError(f"for {WITHOUT_SLOT_S:.0f} s {_too_few_gpus(self.devices_per_trial)}")
        return slots

    def devices(self, slot: int) -> tuple[str, ...]:
        """Of the trials in a slot, on its machine; see `devices_of`. `cpu` where that has just left."""
        place, index = self._now().get(slot, (None, 0))
        return devices_of(index, place.gpus if place is not None else 0, self.devices_per_trial)

    def environment(self, slot: int) -> Environment | None:
        """Of a slot's machine; None where it has just left."""
        place, _ = self._now().get(slot, (None, 0))
        return place.environment if place is not None else None

    def submit(self, executor: Executor, slot: int, request: Request) -> int:
        """Begin a request on a slot's machine; one that has just left ends it as interrupted."""
        place, _ = self._now().get(slot, (None, 0))
        return executor.submit(request, place.id if place is not None else "-")

    def _now(self) -> dict[int, tuple[Place, int]]:
        places = [(index, place) for place in self.nodes.places() for index in range(self.trials_on(place))]
        found = {(place.id, index): place for index, place in sorted(places, key=itemgetter(0))}  # machines take turns
        for key in self._numbers.keys() - found.keys():
            del self._numbers[key]
        for key in [key for key in found if key not in self._numbers]:
            taken = set(self._numbers.values())
            self._numbers[key] = next(number for number in range(len(taken) + 1) if number not in taken)
        return {self._numbers[key]: (place, key[1]) for key, place in found.items()}


def choose_node_slots(
    nodes: NodesExecutor, planned: int, jobs: int | None, threads: int | None, probe: Callable[[], Probed | None],
    devices: int = 1, *, parameters: int = 0, most_mb: float = math.inf, trial_mb: float | None = None,
) -> NodeSlots:  # fmt: skip
    """As asked for (`jobs` on each machine); else a trial per core, or as many on each GPU, as memory allows.

    `devices` is the most that one trial has and `most_mb` what all on one machine, or on one of its GPUs, may take, as
    for `choose_slots`; `parameters` are the base model's. `trial_mb` is what one takes, where that was measured.

    Else `probe` measures the largest trial of the space, or finds that it does not fit (None). It is asked once, and
    only where memory may be short on a machine that is there now.

    Raises `ClusterError` where no machine is there, or none has as many GPUs as a trial takes.
    """
    while not (places := nodes.places()):  # all have just left
        nodes.wait(LOOKS_EVERY_S)
    places = [place for place in places if takes(place, devices)]
    if not places:
        raise ClusterError(_too_few_gpus(devices))
    is_probed = jobs is None and trial_mb is None and any(_is_short(place, most_mb, parameters) for place in places)
    if is_probed:
        largest = probe()
        trial_mb = None if largest is None else largest.memory_mb * MARGIN
    is_known = is_probed or trial_mb is not None
    needed_mb = trial_mb if is_known else ample_mb(parameters)

    def trials_on(place: Place) -> int:
        if not takes(place, devices):
            return 0
        return jobs or max(1, _fitting(place, needed_mb, devices, most_mb, is_known=is_known))

    share = max(1, math.ceil(planned / len(places)))
    cores = min(place.cores // (min(share, trials_on(place)) * devices) for place in places)
    begun = sum(min(share, trials_on(place)) for place in places)
    return NodeSlots(
        max(1, min(begun, planned)), threads or max(1, cores), devices_per_trial=devices, nodes=nodes,
        trials_on=trials_on,
    )  # fmt: skip


def _too_few_gpus(devices: int) -> str:
    return (
        f"no node has had the {devices} GPUs that a trial takes (training.devices): start one that has, or take fewer; "
        "then the same command continues"
    )


def takes(place: Place, devices: int) -> bool:
    """Whether a machine has the GPUs of a trial, or none and so computes on its CPU."""
    return not 0 < place.gpus < devices


def _is_short(place: Place, most_mb: float, parameters: int) -> bool:
    """Whether a trial per core may not fit on a machine."""
    return place.gpus > 0 or not is_ample(place.cores, min(place.memory_mb, most_mb), parameters)


def _fitting(place: Place, needed_mb: float | None, devices: int, most_mb: float, *, is_known: bool) -> int:
    """How many trials fit that need so much for each process. Of one that does not fit alone (None) there is one for
    each device, or group of devices; of one that was never measured at most one for each GPU."""
    groups = groups_of(place.gpus, devices) if place.gpus else 1
    if needed_mb is None or (place.gpus and not is_known):
        return groups
    if not place.gpus:
        return min(place.cores, int(min(place.memory_mb, most_mb) / needed_mb)) // devices
    return groups * max(1, min(place.cores // place.gpus, int(min(place.gpu_memory_mb, most_mb) / needed_mb)))
