"""What the trial host does with a request: one generator of events for each.

Imports are late: the host imports torch when it is asked to, and the child that inspects data may start threads
that the host must not have.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.data.sources import DataProblem
from trainers.host.aside import AsideFailed, AsideKilled, done_aside
from trainers.host.in_turn import in_turn
from trainers.lazy_bitsandbytes import leave_out
from trainers.protocol.events import Decision, Event, Failed, Loaded, PreparedData, Scored
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import (
    Check,
    Export,
    ExportBundle,
    Freeze,
    Import,
    Inspect,
    Load,
    Measure,
    MeasureAll,
    MeasureMemory,
    Probe,
    Request,
    Score,
    Train,
    Tune,
    Verdict,
)
from trainers.protocol.trial_spec import TrialSpec, Workload
from trainers.runtime.cores import usable_cores

if TYPE_CHECKING:
    from trainers.model.base import Base
    from trainers.training.ranks import Ranks


_SHARED = (
    "trainers.prepare.inspect",
    "transformers.generation.utils",
    "transformers.modeling_layers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.tokenization_python",
)
"""What both inspection and trials need: torch, and what transformers imports for any model and any tokenizer."""


@dataclasses.dataclass(frozen=True)
class _Resident:
    base: Base
    loaded_by: int
    """The process that has loaded it: any other one is a fork of that."""


Answer = Generator[Event, Verdict | None, None]
"""To a request: its events, the last of which is terminal."""
_resident: dict[object, _Resident] = {}
"""The base model that `Load` left in the host's memory, by all that decides what it is; children find it there."""


def work(request: Request) -> Answer:
    """Answer a request; the last event is terminal."""
    yield from _with_findings(_answer(request))


def _with_findings(answer: Answer) -> Answer:
    """The answer; where the data is the problem, with what was found."""
    try:
        yield from answer
    except DataProblem as problem:
        yield Failed("data", str(problem), problem.findings)


def _answer(request: Request) -> Answer:
    if isinstance(request, Train):
        yield from _train(request)
    elif isinstance(request, Score) and len(request.devices) > 1:
        with tempfile.TemporaryDirectory() as folder:
            yield from _on_several(request.devices, Path(folder, "ranks"), partial(_score_as, request))
    else:
        yield _ANSWERS[type(request)](request)


def _elsewhere(module: str, name: str) -> Callable[[Any], Event]:
    """The function of that name, whose module is imported when it is called."""

    def answer(request: Any) -> Event:
        event: Event = getattr(importlib.import_module(module), name)(request)
        return event

    return answer


def _import(_: Import) -> Loaded:
    began = time.monotonic()
    leave_out()
    for name in _SHARED:
        importlib.import_module(name)
    return Loaded(parameters=0, seconds=time.monotonic() - began)


def _load(request: Load) -> Loaded:
    from tqdm import tqdm

    began = time.monotonic()
    tqdm.monitor_interval = 0  # its monitor is a thread, and PEFT merges under a bar: a host with threads cannot fork
    parameters, notes, decision = 0, list[str](), None
    leave_out()
    importlib.import_module("trainers.training.loop")  # what a trial needs is imported here once, not in every child
    from trainers.fast.rounded import keep_rounded

    if request.inspection is not None:
        base = _made_resident(request.workload, request.inspection)
        parameters = sum(p.numel() for p in base.model.parameters())
        if not request.inspection.gpus:  # shortcuts are for CPUs; a GPU takes bf16 where it computes it natively
            if base.refused_shortcuts is None:
                notes = _try_shortcuts(base, Path(request.inspection.tokens_dir))
            if request.decide_for is not None:
                decision = _decided(base, request.decide_for, request.inspection, notes)
            if _rounds(base, decision.precision if decision else ""):
                keep_rounded(base.model)
    return Loaded(parameters, time.monotonic() - began, notes, decision)


def _made_resident(workload: Workload, inspection: PreparedData) -> Base:
    """The base model that stays in this process; nothing may change it."""
    _set_threads(1)
    key = _key(workload, inspection)
    if key not in _resident:
        _resident.clear()
        _resident[key] = _Resident(_loaded(workload, inspection), os.getpid())
    return _resident[key].base


def _try_shortcuts(base: Base, tokens_dir: Path) -> list[str]:
    """Let the resident base know which shortcuts its trials do not use; notes that say so.

    Where memory runs out, nothing is known: each trial then tries them itself, and its own memory is what counts. So it
    is where somebody kills whoever tries: trials without shortcuts would get other last bits than those before.
    """
    from trainers.fast.enter import names_for, notes
    from trainers.training.try_out import refused_for_base

    try:
        base.refused_shortcuts = done_aside(partial(refused_for_base, base, tokens_dir))
    except AsideKilled as error:
        print(f"shortcuts are left to the trials: {error}", file=sys.stderr)
    except AsideFailed as error:
        base.refused_shortcuts = dict.fromkeys(names_for(in_bf16=_rounds(base)), str(error))
    return notes(base.refused_shortcuts or {})


def _decided(base: Base, spec: TrialSpec, inspection: PreparedData, notes: list[str]) -> Decision | None:
    """What `precision: auto` is for all trials of the sweep; None, said in `notes`, where it cannot be measured."""
    from trainers.host.precision import decided

    decision = decided(base, spec, inspection)
    if decision is None:
        notes.append("precision: not measured, for memory ran out; bf16 where the CPU computes it natively")
    return decision


def _rounds(base: Base, precision: str = "") -> bool:
    """Whether trials in `precision` (left out: the sweep's own) compute in bf16, and may round frozen weights."""
    from trainers.fast.enter import ROUNDED
    from trainers.model.load import is_bf16_on_cpu

    return is_bf16_on_cpu(precision or base.workload.arithmetic) and ROUNDED not in (base.refused_shortcuts or {})


def _use(device: str) -> None:
    """Make `device` the current one: bitsandbytes, and PEFT when it loads, ask for no other."""
    if device != "cpu":
        import torch

        torch.cuda.set_device(device)


def _score(request: Score) -> Scored:
    from trainers.training.ranks import ALONE

    _use(request.devices[0])
    return _scored(request, ALONE)


def _score_as(request: Score, ranks: Ranks) -> Answer:
    yield _scored(request, ranks)


def _scored(request: Score, ranks: Ranks) -> Scored:
    """This rank's part of a score; all ranks have the result, and the leader writes it."""
    from trainers.model.load import load_adapter
    from trainers.training.evaluation import save_rows, score_model

    began = time.monotonic()
    device, shard = request.devices[ranks.number], "auto"
    base = _prepared(request.workload, request.inspection, request.threads)
    if request.spec:
        spec = dataclasses.replace(request.spec, devices=(device,))  # where a base of 4 or 8 bits is made
        base.model = load_adapter(base, spec, TrialPaths(Path(spec.dir)).adapter)
        shard = str(spec.settings.get("shard", shard))
    # The base was loaded before `precision: auto` was decided; the request knows what trials compute in.
    precision, tokens_dir = request.workload.arithmetic, Path(request.inspection.tokens_dir)
    metrics, rows = score_model(base, tokens_dir, device, request.split, precision, ranks, shard)
    if request.rows_file and ranks.number == 0:
        save_rows(rows, Path(request.rows_file))
    return Scored(metrics, time.monotonic() - began)


def _probe(request: Probe) -> Event:
    from trainers.training.probe import probe

    _use(request.spec.device)
    base = _prepared(request.spec.workload, request.inspection, request.spec.threads)
    return probe(base, request.spec, Path(request.inspection.tokens_dir))


def _measure_memory(request: MeasureMemory) -> Event:
    from trainers.training.memory_probe import measure_memory

    _use(request.spec.device)
    base = _prepared(request.spec.workload, request.inspection, request.spec.threads)
    return measure_memory(base, request.spec, Path(request.inspection.tokens_dir), request.most_mb)


def _train(request: Train) -> Answer:
    from trainers.training.loop import train
    from trainers.training.usage import with_usage

    spec = request.spec
    if len(spec.devices) > 1:
        yield from _on_several(spec.devices, TrialPaths(Path(spec.dir)).meeting, partial(_train_as, request))
        return
    _use(spec.device)
    base = _prepared(spec.workload, request.inspection, spec.threads)
    trial, usage = train(base, spec, Path(request.inspection.tokens_dir)), TrialPaths(Path(spec.dir)).usage
    yield from in_turn({spec.number: with_usage(trial, usage, spec.devices)})


def _train_as(request: Train, ranks: Ranks) -> Answer:
    """What one of a trial's processes does: the first one leads, the others follow."""
    from trainers.training.follow import follow
    from trainers.training.loop import train
    from trainers.training.usage import with_usage

    spec, tokens_dir = request.spec.from_rank(ranks.number), Path(request.inspection.tokens_dir)
    base = _prepared(spec.workload, request.inspection, spec.threads)
    if ranks.number > 0:
        follow(base, spec, tokens_dir, ranks)
    trial, usage = train(base, spec, tokens_dir, ranks), TrialPaths(Path(spec.dir)).usage
    yield from in_turn({spec.number: with_usage(trial, usage, spec.devices, ranks.pids)})


def _on_several(devices: Sequence[str], meeting: Path, work: Callable[[Ranks], Answer]) -> Answer:
    """A process for each device, forked before any of them has threads or has touched a GPU; they meet in a file."""
    from trainers.host.ranks import run_ranks
    from trainers.training.ranks import is_of_a_lost_rank, join

    def as_rank(number: int) -> Answer:
        _use(devices[number])
        yield from _with_findings(work(join(number, len(devices), meeting, devices[number])))

    meeting.parent.mkdir(parents=True, exist_ok=True)
    meeting.unlink(missing_ok=True)  # of an attempt that was killed
    try:
        last = yield from run_ranks(len(devices), as_rank, is_of_a_lost_rank)
    finally:
        meeting.unlink(missing_ok=True)
    yield last


def _export(request: Export) -> Event:
    from trainers.export.promotion import export

    return export(_prepared(request.spec.workload, request.inspection, threads=0), request)


def _export_bundle(request: ExportBundle) -> Event:
    from trainers.export.bundle import export_bundle

    _set_threads(usable_cores())
    return export_bundle(request)


def _prepared(workload: Workload, inspection: PreparedData, threads: int) -> Base:
    """A base model that the request may change, and torch set to `threads` (0: as many as there are cores to use).

    Methods change it in place: they wrap its modules, thaw, quantize, hook and train them. A fork of the process that
    has loaded it changes its own pages, and takes it: it serves one request. The process itself hands out a copy. What
    is not resident is loaded for this request alone.
    """
    _set_threads(threads or usable_cores())
    key = _key(workload, inspection)
    if key not in _resident:
        return _loaded(workload, inspection)
    if _resident[key].loaded_by != os.getpid():
        return _resident.pop(key).base
    gc.collect()  # the copy of the request before may hang in cycles: there is never room for two
    return copy.deepcopy(_resident[key].base)


def _key(workload: Workload, inspection: PreparedData) -> object:
    return (workload.task, workload.model, tuple(inspection.labels), inspection.scale)


def _loaded(workload: Workload, inspection: PreparedData) -> Base:
    from trainers.model.load import load_base

    return load_base(workload, inspection.labels, inspection.model_dir, inspection.scale)


def _set_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


_ANSWERS: Mapping[type[Request], Callable[[Any], Event]] = {
    Import: _import,
    Inspect: _elsewhere("trainers.prepare.inspect", "inspect"),
    Check: _elsewhere("trainers.prepare.check", "check"),
    Freeze: _elsewhere("trainers.prepare.freeze", "freeze"),
    Load: _load,
    Score: _score,
    Probe: _probe,
    MeasureMemory: _measure_memory,
    Export: _export,
    ExportBundle: _export_bundle,
    MeasureAll: _elsewhere("trainers.export.promotion", "measure_all"),
    Measure: _elsewhere("trainers.export.promotion", "measure_variant"),
    Tune: _elsewhere("trainers.export.tuning", "tune"),
}
"""What answers each request with one event; `Train` alone has several."""
