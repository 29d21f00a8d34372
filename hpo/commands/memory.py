"""Memory before a sweep: where it may be short, trials are measured, and what they need decides how they run.

A model of memory is measured for each kind of trial that the space holds (`hpo.trials.fitting.kind_of`), at its largest
point, each in a child. From then on all is arithmetic.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hpo.config.dimensions import Choice, Dimension
from hpo.config.space import Point
from hpo.config.strategy import is_countable
from hpo.config.sweep_config import SweepConfig, corner
from hpo.config.trial_specs import TrialSpecs
from hpo.errors import RequestFailed
from hpo.executors.base import Executor, NodesExecutor
from hpo.executors.free_memory import available_memory_mb
from hpo.results.left_out import LeftOut, NotTried, gigabytes
from hpo.trials.calls import run_alone
from hpo.trials.fitting import FEW, KIND, Fitting, Kind, Way, free_settings, kind_of
from hpo.trials.node_slots import takes
from hpo.trials.slots import MARGIN, cores, first_devices, groups_of, is_ample, sharing_a_memory
from trainers.protocol.files import TrialPaths
from trainers.protocol.memory_model import MOST_WHOLE, MemoryModel
from trainers.protocol.requests import MeasureMemory
from trainers.protocol.settings import QUANTIZING_METHODS, Setting
from trainers.protocol.trial_spec import TrialSpec

MOST_KINDS = 8
"""Measured; trials of others run as the file says."""
MOST_LISTED = 2000
"""Points of a space that are all looked at; of a larger one `SAMPLE` are."""
SAMPLE = 128


@dataclass(frozen=True)
class MemoryPlan:
    """How the trials of a sweep fit into memory, and what of its space cannot."""

    fitting: Fitting
    jobs: int | None = None
    """At a time, on all devices together; None where nothing was measured."""
    trial_mb: float | None = None
    """What a process of a trial takes at most, as they run; None where nothing was measured."""
    left_out: LeftOut = field(default_factory=LeftOut)
    lines: tuple[str, ...] = ()
    """For people: what was chosen, and why."""

    def jobs_of(self, asked: int | None, planned: int) -> int | None:
        """As many trials at a time as were asked for, else as fit; None where that is left to `choose_slots`."""
        return asked if asked is not None or self.jobs is None else min(self.jobs, planned)


@dataclass(frozen=True)
class Measured:
    """What a few passes of each kind of trial said."""

    models: Mapping[Kind, MemoryModel]
    impossible: frozenset[Kind] = frozenset()
    """As in `Fitting`."""


UNMEASURED = MemoryPlan(Fitting())
"""Memory is ample, or not known: trials run as the file says."""
SHARDED = MemoryPlan(
    Fitting(),
    lines=("memory: not planned, for `training.shard` may spread frozen layers; trials run as the file says",),
)
"""What a device then holds was never measured."""


def plan_memory(executor: Executor, specs: TrialSpecs, jobs: int | None, say: Callable[[str], None]) -> MemoryPlan:
    """What fits, measured where memory is not ample; `jobs` is what a person asked for."""
    return _planned(executor, specs, jobs, say, available_memory_mb(), cores())


def plan_memory_on_nodes(
    nodes: NodesExecutor, specs: TrialSpecs, jobs: int | None, say: Callable[[str], None]
) -> MemoryPlan:  # fmt: skip
    """The same for machines of which any may get a trial: it fits on the one that has least."""
    places = [place for place in nodes.places() if takes(place, specs.config.devices_per_trial())]
    if not places or len({place.gpus > 0 for place in places}) > 1:
        return UNMEASURED  # a model of memory is of one kind of device
    if any(place.gpus and not place.gpu_memory_mb for place in places):
        return UNMEASURED  # nobody knows what is free there
    least = min(places, key=lambda place: place.gpu_memory_mb if place.gpus else place.memory_mb)
    there = replace(specs, prepared=replace(specs.prepared, gpus=least.gpus, gpu_memory_mb=least.gpu_memory_mb))
    plan = _planned(nodes, there, jobs, say, least.memory_mb, least.cores)
    where = f"memory: planned for {least.name}, which has least of {len(places)} nodes"
    return replace(plan, lines=(where, *plan.lines)) if plan.trial_mb and len(places) > 1 else plan


def _planned(
    executor: Executor, specs: TrialSpecs, jobs: int | None, say: Callable[[str], None], memory_mb: float, cores: int
) -> MemoryPlan:  # fmt: skip
    """What fits on a machine with so much memory free, and so many cores."""
    if may_be_sharded(specs):
        return SHARDED
    limit_mb, wanted = room_mb(specs, memory_mb), jobs_on_a_device(specs, jobs, cores)
    processes = wanted * specs.config.devices_per_trial()
    if not specs.prepared.gpus and is_ample(processes, limit_mb, specs.prepared.parameters):
        return UNMEASURED
    say("memory may be short: measuring what trials need")
    found = measured(executor, specs, limit_mb)
    if not found.models and not found.impossible:
        return UNMEASURED
    return memory_plan(specs, found, limit_mb, wanted, is_given=jobs is not None)


def memory_plan(specs: TrialSpecs, found: Measured, limit_mb: float, wanted: int, *, is_given: bool) -> MemoryPlan:
    """The same from what was measured; `wanted` trials at a time on a device, or as many of them as fit."""
    devices = first_devices(specs.prepared, specs.config.devices_per_trial())
    alone = Fitting(found.models, limit_mb, 1, found.impossible, free_settings(specs.config))
    points = points_of(specs.config)
    needs = Needs.of(specs, alone, points)
    at_a_time = wanted if is_given else needs.most_at_a_time(wanted)
    fitting = replace(alone, at_a_time=at_a_time)
    is_counted = is_countable(specs.config.space, MOST_LISTED)
    refused = needs.refused if is_counted or not needs.refused else [needs.refused[0], needs.refused[-1]]
    left_out = LeftOut(len(needs.refused) / len(points), is_counted, refused)
    process_mb = min(limit_mb / at_a_time, needs.most_mb(fitting) * MARGIN) / sharing_a_memory(devices)
    groups = groups_of(specs.prepared.gpus, len(devices))
    return MemoryPlan(fitting, at_a_time * groups, process_mb, left_out, tuple(needs.lines(fitting, left_out)))


def room_mb(specs: TrialSpecs, memory_mb: float) -> float:
    """What trials may take together, or on each GPU: what is free, or less where the file says so."""
    return min(specs.prepared.gpu_memory_mb if specs.prepared.gpus else memory_mb, most_mb(specs.config))


def most_mb(config: SweepConfig) -> float:
    """What the file lets trials take together, or on each GPU."""
    return math.inf if config.memory_gb is None else config.memory_gb * 1024


def jobs_on_a_device(specs: TrialSpecs, jobs: int | None, cores: int) -> int:
    """As many trials at a time as were asked for, or as there are cores to feed them and trials to run; of several GPUs
    on each, or on each group of as many as a trial has."""
    devices = specs.config.devices_per_trial()
    groups = groups_of(specs.prepared.gpus, devices)
    wanted = jobs or min(cores // devices, specs.config.most_trials())
    return max(1, wanted // groups if jobs is None else -(-wanted // groups))


def may_be_sharded(specs: TrialSpecs) -> bool:
    """Whether frozen layers may be spread over the devices of a trial, as `trainers/training/shard.py` decides it: of a
    base in float32, by the memory that a GPU has, which is at least what is free there."""
    config, prepared = specs.config, specs.prepared
    shard = config.settings["shard"]
    if config.devices_per_trial() == 1 or shard == "off" or {*config.methods()} <= QUANTIZING_METHODS:
        return False
    whole_mb = prepared.parameters * 4 / (1 << 20)
    return shard == "full" or (prepared.gpus > 0 and whole_mb > MOST_WHOLE * prepared.gpu_memory_mb)


def measured(executor: Executor, specs: TrialSpecs, limit_mb: float) -> Measured:
    """Each kind of trial at its largest point; where memory runs out there, at its smallest. Of a kind that fails
    otherwise nothing is known: it is tried."""
    answers = {kind: _answer(executor, specs, ends, limit_mb) for kind, ends in _ends_of_kinds(specs).items()}
    models = {kind: answer for kind, answer in answers.items() if isinstance(answer, MemoryModel)}
    return Measured(models, frozenset(kind for kind, answer in answers.items() if answer == "oom"))


def _answer(executor: Executor, specs: TrialSpecs, ends: Sequence[TrialSpec], limit_mb: float) -> MemoryModel | str:
    """The model of the first of these trials that memory does not run out of, else why there is none."""
    cause = ""
    for spec in ends:
        try:
            answer = run_alone(executor, MeasureMemory(spec, specs.prepared, limit_mb))
        except RequestFailed as error:
            if (cause := error.cause) != "oom":
                break
        else:
            assert isinstance(answer, MemoryModel)  # noqa: S101  # the protocol's answer to MeasureMemory
            return answer
    return cause


def _ends_of_kinds(specs: TrialSpecs) -> dict[Kind, list[TrialSpec]]:
    """Of each kind the trial that takes most memory, and, if it is another one, that which takes least."""
    space, found = specs.config.space, dict[Kind, list[TrialSpec]]()
    for chosen in _kinds(space.dimensions):
        ends = [_spec(specs, corner(specs.config, end, chosen)) for end in ("high", "low")]
        found.setdefault(kind_of(ends[0]), [ends[0], *(spec for spec in ends[1:] if spec != ends[0])])
    return dict(list(found.items())[:MOST_KINDS])


def _kinds(dimensions: Mapping[str, Dimension]) -> Iterator[Point]:
    """Every choice of what makes a kind, with dropout and without."""
    points: list[Point] = [{}]
    for name, dimension in dimensions.items():
        values: Sequence[Setting] = ()
        if name in ("method", *KIND) and isinstance(dimension, Choice):
            values = dimension.values
        elif name == "lora_dropout":
            ends = dimension.values if isinstance(dimension, Choice) else (dimension.last,)
            most = max(float(end or 0) for end in ends)
            values = [most, *([0.0] if dimension.contains(0.0) else [])]
        points = [{**point, name: value} for point in points for value in values] if values else points
        points = points[: MOST_KINDS**2]
    yield from points


def points_of(config: SweepConfig) -> list[Point]:
    """All points of the space, or a sample with its corners and the baseline."""
    space = config.space
    if is_countable(space, MOST_LISTED):
        return space.grid()
    chance = random.Random(config.seed)  # noqa: S311  # a repeatable draw, not a secret
    drawn = [space.point(lambda _, dimension: dimension.at(chance.random())) for _ in range(SAMPLE)]
    return [config.baseline(), corner(config, "low"), corner(config, "high"), *drawn]


def _spec(specs: TrialSpecs, point: Point) -> TrialSpec:
    devices = first_devices(specs.prepared, specs.config.devices_per_trial())
    return specs.spec(0, point, TrialPaths(Path(specs.home.sweep(specs.config.name).dir)), devices=devices)


@dataclass(frozen=True)
class Needs:
    """What the points of a space need, as far as it is known: (spec, its ways from the cheapest on)."""

    known: list[tuple[TrialSpec, list[Way]]]
    refused: list[NotTried]
    """Those that need least first."""
    alone: Fitting

    @classmethod
    def of(cls, specs: TrialSpecs, alone: Fitting, points: Sequence[Point]) -> Needs:
        """The baseline is never refused: all others are compared with it."""
        baseline, known, refused = specs.config.baseline(), list[tuple[TrialSpec, list[Way]]](), list[NotTried]()
        for point in points:
            spec = _spec(specs, point)
            if point != baseline and (why := alone.refuse(spec)):
                refused.append(NotTried(point, why.needs_mb, why.of_mb))
            elif ways := list(alone.ways(spec, alone.free)):
                known.append((spec, ways))
        return cls(known, sorted(refused, key=lambda point: point.needs_mb or math.inf), alone)

    def most_at_a_time(self, wanted: int) -> int:
        """As many that every trial that fits alone has a way that is as cheap; one where none surely fits."""
        limit = self.alone.limit_mb
        fitting = [(ways, cost) for _, ways in self.known if (cost := self._cost(ways, limit)) is not None]
        if self.known and not fitting:
            return 1
        counts = range(wanted, 1, -1)
        return next((n for n in counts if all(self._cost(ways, limit / n) == cost for ways, cost in fitting)), 1)

    def most_mb(self, fitting: Fitting) -> float:
        """What the largest of them needs in the way that was chosen for it; infinite where nothing is known."""
        return max((way.needs_mb for spec, _ in self.known if (way := fitting.way(spec))), default=math.inf)

    def _cost(self, ways: Sequence[Way], room_mb: float) -> int | None:
        """0 where a trial fits at hardly any cost, 1 where it costs time; None where it does not surely fit."""
        few = min(FEW, ways[0].micro_batch_size)
        cheap = [way for way in ways if not way.recomputes and way.micro_batch_size >= few]
        both = enumerate((cheap, ways))
        return next((cost for cost, some in both if any(self.alone.is_sure(way, room_mb) for way in some)), None)

    def lines(self, fitting: Fitting, left_out: LeftOut) -> Iterator[str]:
        """The largest and the median point, what was chosen for all, and what is not tried."""
        each = sorted(((ways[0], fitting.way(spec)) for spec, ways in self.known), key=lambda pair: pair[0].needs_mb)
        where = f"{gigabytes(fitting.limit_mb)} for {fitting.at_a_time} trial{'s' * (fitting.at_a_time != 1)} at a time"
        where += _of_several(max((spec.devices for spec, _ in self.known), key=len, default=()))
        if each:
            (median, _), (largest, chosen) = each[len(each) // 2], each[-1]
            yield (f"memory: {where}; the median point needs about {gigabytes(median.needs_mb)}, the largest "
                   f"{gigabytes(largest.needs_mb)}{_instead(largest, chosen)}")  # fmt: skip
        changed = sum(chosen is not None and chosen != usual for usual, chosen in each)
        if changed:
            some = f"{changed} of {len(each)}" if left_out.is_counted else f"{changed / len(each):.0%} of the"
            yield f"memory: {some} points run with fewer rows at a time, or with gradient_checkpointing, to fit"
        if line := left_out.line():
            yield line


def _of_several(devices: Sequence[str]) -> str:
    """That a trial has several devices."""
    if len(devices) < 2:
        return ""
    return f" (of {len(devices)} processes)" if "cpu" in devices else f" on each of its {len(devices)} GPUs"


def _instead(usual: Way, chosen: Way | None) -> str:
    """What the largest point runs with in place of its defaults."""
    if chosen is None or chosen == usual:
        return ""
    twice = ", gradient_checkpointing: true" if chosen.recomputes and not usual.recomputes else ""
    return f" (with micro_batch_size: {chosen.micro_batch_size}{twice} about {gigabytes(chosen.needs_mb)})"
