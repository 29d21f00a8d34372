"""What the trial host does with a request: one generator of events for each.

Imports are late: the host imports torch when it is asked to, and the child that inspects data may start threads
that the host must not have.
"""

from __future__ import annotations

import dataclasses
import importlib
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.data.sources import DataProblem
from trainers.host.in_turn import in_turn
from trainers.host.resident import import_shared, load, prepared, set_threads
from trainers.protocol.events import Event, Failed, Scored
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
from trainers.runtime.cores import usable_cores

if TYPE_CHECKING:
    from trainers.training.ranks import Ranks


Answer = Generator[Event, Verdict | None, None]
"""To a request: its events, the last of which is terminal."""


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
    base = prepared(request.workload, request.inspection, request.threads)
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
    base = prepared(request.spec.workload, request.inspection, request.spec.threads)
    return probe(base, request.spec, Path(request.inspection.tokens_dir))


def _measure_memory(request: MeasureMemory) -> Event:
    from trainers.training.memory_probe import measure_memory

    _use(request.spec.device)
    base = prepared(request.spec.workload, request.inspection, request.spec.threads)
    return measure_memory(base, request.spec, Path(request.inspection.tokens_dir), request.most_mb)


def _train(request: Train) -> Answer:
    from trainers.training.loop import train
    from trainers.training.usage import with_usage

    spec = request.spec
    if len(spec.devices) > 1:
        yield from _on_several(spec.devices, TrialPaths(Path(spec.dir)).meeting, partial(_train_as, request))
        return
    _use(spec.device)
    base = prepared(spec.workload, request.inspection, spec.threads)
    trial, usage = train(base, spec, Path(request.inspection.tokens_dir)), TrialPaths(Path(spec.dir)).usage
    yield from in_turn({spec.number: with_usage(trial, usage, spec.devices)})


def _train_as(request: Train, ranks: Ranks) -> Answer:
    """What one of a trial's processes does: the first one leads, the others follow."""
    from trainers.training.follow import follow
    from trainers.training.loop import train
    from trainers.training.usage import with_usage

    spec, tokens_dir = request.spec.from_rank(ranks.number), Path(request.inspection.tokens_dir)
    base = prepared(spec.workload, request.inspection, spec.threads)
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

    return export(prepared(request.spec.workload, request.inspection, threads=0), request)


def _export_bundle(request: ExportBundle) -> Event:
    from trainers.export.bundle import export_bundle

    set_threads(usable_cores())
    return export_bundle(request)


_ANSWERS: Mapping[type[Request], Callable[[Any], Event]] = {
    Import: import_shared,
    Inspect: _elsewhere("trainers.prepare.inspect", "inspect"),
    Check: _elsewhere("trainers.prepare.check", "check"),
    Freeze: _elsewhere("trainers.prepare.freeze", "freeze"),
    Load: load,
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
