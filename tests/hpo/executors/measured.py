"""The fake trainer, which can say what trials need where they would train: on a node. Imported by the trial host."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

from trainers.host import fake
from trainers.protocol.events import Event, Failed
from trainers.protocol.memory_model import Activations, MemoryModel
from trainers.protocol.requests import MeasureMemory, Request, Verdict

MODEL = MemoryModel(
    fixed_mb=100.0, build_mb=0.0, parameters=64 << 20, parameters_per_size=float(1 << 20), size=64,
    bytes_per_parameter=1.0, saving_bytes_per_parameter=0.0, evaluation_mb=5.0, kept=Activations(1.0, 0.0),
    recomputed=Activations(0.25, 0.0), layout="apart", lengths=[10] * 64,
)  # fmt: skip
"""100 MB, 1 MB a rank, and 10 MB a row, or 2.5 MB where activations are computed twice."""


def work(request: Request) -> Generator[Event, Verdict | None, None]:
    if isinstance(request, MeasureMemory):
        folder = Path(request.spec.dir)
        is_on_node = folder.is_dir() and folder.is_relative_to(os.environ["HPO_NODE_HOME"])
        yield MODEL if is_on_node else Failed("crash", f"{folder} is no folder of a node")
    else:
        yield from fake.work(request)
