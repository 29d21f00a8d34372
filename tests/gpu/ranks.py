"""One trial on two GPUs: its place in the table, until the trainers spread a trial over devices."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tests.gpu.place import Place
from tests.gpu.rows import Row, not_run

WHAT = "one trial on two GPUs gives the losses of one GPU"


def run(place: Place) -> Iterator[Row]:
    """Nothing yet: `TrialSpec.devices` may name one device alone."""
    gpus = torch.cuda.device_count()
    why = f"there {'is 1 GPU' if gpus == 1 else f'are {gpus} GPUs'}" if gpus < 2 else "trials take one device each"
    yield not_run(WHAT, why)
