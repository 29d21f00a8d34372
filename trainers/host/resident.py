"""What the trial host keeps in memory for its children, libraries and the base model, and how they get it.

Imports are late: the host imports torch when it is asked to.
"""

from __future__ import annotations

import copy
import gc
import importlib
import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trainers.host.aside import AsideFailed, AsideKilled, done_aside
from trainers.lazy_bitsandbytes import leave_out
from trainers.protocol.events import Decision, Loaded, PreparedData
from trainers.protocol.requests import Import, Load
from trainers.protocol.trial_spec import TrialSpec, Workload
from trainers.runtime.cores import usable_cores

if TYPE_CHECKING:
    from trainers.model.base import Base


_SHARED = (
    "trainers.prepare.inspect",
    "transformers.generation.utils",
    "transformers.modeling_layers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.tokenization_python",
)
"""What both inspection and trials need: torch, and what transformers imports for any model and any tokenizer."""


@dataclass(frozen=True)
class _Resident:
    base: Base
    loaded_by: int
    """The process that has loaded it: any other one is a fork of that."""


_resident: dict[object, _Resident] = {}
"""The base model that `Load` left in the host's memory, by all that decides what it is; children find it there."""


def import_shared(_: Import) -> Loaded:
    """Import what every child needs, before one is forked."""
    began = time.monotonic()
    leave_out()
    for name in _SHARED:
        importlib.import_module(name)
    return Loaded(parameters=0, seconds=time.monotonic() - began)


def load(request: Load) -> Loaded:
    """Load the base model and decide once what all its trials share: shortcuts, and the precision.

    Raises what `load_base` raises.
    """
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
    set_threads(1)
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


def prepared(workload: Workload, inspection: PreparedData, threads: int) -> Base:
    """A base model that the request may change, and torch set to `threads` (0: as many as there are cores to use).

    Methods change it in place: they wrap its modules, thaw, quantize, hook and train them. A fork of the process that
    has loaded it changes its own pages, and takes it: it serves one request. The process itself hands out a copy. What
    is not resident is loaded for this request alone.
    """
    set_threads(threads or usable_cores())
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


def set_threads(count: int) -> None:
    """Of torch, in this process."""
    import torch

    torch.set_num_threads(count)
