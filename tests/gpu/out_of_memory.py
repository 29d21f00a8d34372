"""A GPU that another process has filled: a trial ends as out of memory, and fits with a halved micro-batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from hpo.executors.local import LocalExecutor
from tests.gpu.place import Place
from tests.gpu.rows import Row, held
from tests.gpu.trained import trained
from tests.gpu.trials import Prepared, random_llama
from trainers.protocol.trial_spec import TrialSpec

ROOM_MB = 3500
"""What the ballast leaves: less than a step of all rows at a time needs, and more than one of a few."""
ROWS = 64
MOST_HALVINGS = 6
TOO_MANY = 16
"""Rows at a time that a rehearsal refuses, in the place of a full GPU."""
REFUSES = f"""
import torch

def loss(logits, targets):
    if len(targets) > {TOO_MANY} * 11:
        raise torch.OutOfMemoryError("CUDA out of memory (rehearsed)")
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")
"""


def rows(executor: LocalExecutor, place: Place) -> Iterator[Row]:
    """Halve until it fits, as a sweep does."""
    folder = place.folder / "out-of-memory"
    length = place.size(512, 12)
    given = random_llama(folder, *place.size((512, 8, 8), (32, 2, 4)), [length] * (2 * ROWS + 16))
    given = replace(given, workload=replace(given.workload, code_dir=str(folder)))
    (folder / "own.py").write_text(REFUSES)
    ballast = _ballast(place)
    attempts = []
    for halvings in range(MOST_HALVINGS + 1):
        attempts += trained(executor, given, [_spec(given, place, halvings)])
        if attempts[-1].failed is None or attempts[-1].failed.cause != "oom":
            break
    del ballast
    first, last = attempts[0].failed, attempts[-1]
    said = f"{first.cause}: {first.message[:120]}" if first else "it fitted"
    yield held(f"{ROWS} rows at a time on a full GPU: out of memory", first is not None and first.cause == "oom", said)
    at_last = f"{ROWS >> (len(attempts) - 1)} rows at a time" if last.result else str(last.failed)
    is_trained = last.result is not None and len(attempts) > 1
    yield held("halved until it fits, and trained to its end", is_trained, at_last)


def _spec(given: Prepared, place: Place, halvings: int) -> TrialSpec:
    own = {"loss": "own.py:loss"} if place.rehearses else {}
    spec = given.spec(
        place.folder / "trial", place.device, precision=place.size("bf16", "fp32"), examples=2 * ROWS,
        batch_size=ROWS, micro_batch_size=ROWS, evaluations=1, **own,
    )  # fmt: skip
    return replace(spec, metric="loss", direction="minimize", micro_batch_halvings=halvings)


def _ballast(place: Place) -> torch.Tensor | None:
    """Takes all of the GPU but `ROOM_MB`."""
    if place.rehearses:
        return None
    torch.cuda.init()
    free, _ = torch.cuda.mem_get_info(place.device)
    return torch.empty(max(0, free - ROOM_MB * 1_000_000), dtype=torch.uint8, device=place.device)
