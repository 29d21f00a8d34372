"""The real trainer where a forward pass takes memory by the token, and more in a full fine-tune; trials may not grow.

Imported by the trial host as a module of its own. Unlike in `tight.py`, what a pass takes is written to, so that a
measurement sees it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from tight import limit_memory  # the host imports this file as `tight.py`, by its name alone

from trainers.host import dispatch as trainer
from trainers.protocol.events import Event
from trainers.protocol.requests import MeasureMemory, Request, Train, Verdict

TOKEN_MB = 4
FULL_MB = 900
ROOM_MB = 640
"""Room for 0.4 GB of a trial, beside what a tiny model and its threads reserve."""


def work(request: Request) -> Generator[Event, Verdict | None, None]:
    if isinstance(request, (MeasureMemory, Train)):
        take_memory_by_the_token(FULL_MB if request.spec.method == "full" else 0)
    if isinstance(request, Train):
        limit_memory(ROOM_MB)
    yield from trainer.work(request)


def take_memory_by_the_token(always_mb: int) -> None:
    import torch

    from trainers.tasks.text_classification import TextClassification

    sums = TextClassification.sums

    def hungry(self: Any, model: Any, batch: Any, loss: Any) -> Any:
        activations = torch.ones(always_mb + batch.tokens * TOKEN_MB, 1 << 18)
        answer = sums(self, model, batch, loss)
        del activations
        return answer

    TextClassification.sums = hungry  # type: ignore[method-assign]
