"""The real trainer in processes that may not grow: a forward pass takes memory by the row, as long texts would.

Imported by the trial host as a module of its own. The limit stands in for a small machine; the allocation that fails is
a real one, of the real allocator.
"""

from __future__ import annotations

import resource
from collections.abc import Generator
from pathlib import Path
from typing import Any

from trainers.host import dispatch as trainer
from trainers.protocol.events import Event
from trainers.protocol.requests import Request, Train, Verdict

ROW_MB = 256
ROOM_MB = 700
"""Room for two rows, beside all that a tiny model takes."""
SPARED_PASSES = "spared_passes"
"""A file in a trial's folder: so many forward passes of its first attempt take nothing."""


def work(request: Request) -> Generator[Event, Verdict | None, None]:
    if isinstance(request, Train):
        take_memory_by_the_row(spared_passes(Path(request.spec.dir, SPARED_PASSES)))
        limit_memory(ROOM_MB)
    yield from trainer.work(request)


def spared_passes(path: Path) -> int:
    if not path.exists():
        return 0
    spared = int(path.read_text())
    path.unlink()
    return spared


def take_memory_by_the_row(spared: int) -> None:
    import torch

    from trainers.tasks.text_classification import TextClassification

    sums = TextClassification.sums
    passes = 0

    def hungry(self: Any, model: Any, batch: Any, loss: Any) -> Any:
        nonlocal passes
        passes += 1
        rows = len(batch.input_ids) if passes > spared else 0
        activations = torch.empty(rows, ROW_MB << 18)
        answer = sums(self, model, batch, loss)
        del activations
        return answer

    TextClassification.sums = hungry  # type: ignore[method-assign]


def limit_memory(room_mb: int) -> None:
    """So much address space more than this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + (room_mb << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
