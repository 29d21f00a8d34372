"""What the trial host does with a request: one generator of events for each.

Imports are late: the host imports torch when it is asked to load, and the child that inspects data may start threads
that the host must not have.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from trainers.files import TrialPaths
from trainers.sources import DataProblem
from trainers.spec import (
    Check,
    Event,
    Export,
    Failed,
    Inspect,
    Inspection,
    Load,
    Loaded,
    Probe,
    Request,
    Score,
    Scored,
    TrainRequest,
    Verdict,
    Workload,
)

if TYPE_CHECKING:
    from trainers.model import Base

_resident: dict[object, Base] = {}
"""The base model that `Load` left in the host's memory; children find it there."""


def work(request: Request) -> Generator[Event, Verdict | None, None]:
    """Answer a request; the last event is terminal."""
    try:
        yield from _answer(request)
    except DataProblem as problem:
        yield Failed("data", str(problem), problem.findings)


def _answer(request: Request) -> Generator[Event, Verdict | None, None]:
    if isinstance(request, Inspect):
        from trainers.inspection import inspect

        yield inspect(request)
    elif isinstance(request, Check):
        from trainers.checkup import check

        yield check(request)
    elif isinstance(request, Load):
        yield _load(request)
    elif isinstance(request, Score):
        yield _score(request)
    elif isinstance(request, Probe):
        from trainers.probe import probe

        base = _prepared(request.spec.workload, request.inspection, request.spec.threads)
        yield probe(base, request.spec, Path(request.inspection.tokens_dir))
    elif isinstance(request, TrainRequest):
        from trainers.loop import train

        base = _prepared(request.spec.workload, request.inspection, request.spec.threads)
        yield from train(base, request.spec, Path(request.inspection.tokens_dir))
    elif isinstance(request, Export):
        from trainers.export.promotion import export

        yield export(_prepared(request.spec.workload, request.inspection, threads=0), request)
    else:
        from trainers.export.promotion import measure_variant

        yield measure_variant(request)


def _load(request: Load) -> Loaded:
    began = time.monotonic()
    _import_for_trials()
    parameters = 0
    if request.inspection is not None:
        base = _prepared(request.workload, request.inspection, threads=1)
        parameters = sum(p.numel() for p in base.model.parameters())
    return Loaded(parameters, time.monotonic() - began)


def _import_for_trials() -> None:
    """What a trial needs, once and not in every child.

    PEFT imports bitsandbytes, which asks every GPU what it can: after that no child of this process could use one. So
    where there are GPUs it is hidden from PEFT, and imported in a child that needs it.
    """
    import torch

    hides = torch.cuda.is_available() and "bitsandbytes" not in sys.modules
    if hides:
        sys.modules["bitsandbytes"] = None  # type: ignore[assignment]  # how Python marks a module as not to be had
    try:
        importlib.import_module("trainers.loop")
    finally:
        if hides:
            del sys.modules["bitsandbytes"]


def _score(request: Score) -> Scored:
    from trainers.evaluation import save_rows, score_model
    from trainers.model import load_adapter

    began = time.monotonic()
    base = _prepared(request.workload, request.inspection, request.threads)
    if request.spec:
        base.model = load_adapter(base, request.spec, TrialPaths(Path(request.spec.dir)).adapter)
    metrics, rows = score_model(base, Path(request.inspection.tokens_dir), request.device, request.split)
    if request.rows_file:
        save_rows(rows, Path(request.rows_file))
    return Scored(metrics, time.monotonic() - began)


def _prepared(workload: Workload, inspection: Inspection, threads: int) -> Base:
    """The base model, from memory when it is there, and torch set to `threads` (0: as the machine has cores)."""
    import torch

    from trainers.model import load_base

    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    key = (workload.task, workload.model, tuple(inspection.labels))
    if key not in _resident:
        _resident.clear()
        _resident[key] = load_base(workload, inspection.labels, inspection.model_dir)
    return _resident[key]
