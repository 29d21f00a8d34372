"""One trial on two GPUs: the losses of one GPU, with the frozen layers whole on each and spread over both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from hpo.executors.local import LocalExecutor
from tests.gpu.place import Place
from tests.gpu.rows import Row, held, not_run
from tests.gpu.trained import Ran, trained
from tests.gpu.trials import Prepared, furthest, random_llama
from trainers.protocol.events import Loaded, Step
from trainers.protocol.requests import Load

WHAT = "one trial on two GPUs gives the losses of one GPU"
BOUND = 1e-3
"""Largest difference of a loss, as a share of that on one device: in fp32, sums in another order explain no more."""
BATCH, ROWS_AT_A_TIME = 8, 2


def run(place: Place) -> Iterator[Row]:
    """Ranks of a real host: a trial on one device, on two, and on two with its frozen layers sharded."""
    gpus = torch.cuda.device_count()
    if gpus < 2 and not place.rehearses:
        yield not_run(WHAT, "there is 1 GPU")
        return
    given = random_llama(place.folder, *place.size((256, 4, 4), (32, 2, 4)), [place.size(96, 12)] * 64)
    given = replace(given, found=replace(given.found, gpus=place.size(2, 0)))
    both = place.size(("cuda:0", "cuda:1"), ("cpu", "cpu"))
    executor = LocalExecutor(place.folder / "host.log")
    try:
        executor.submit(Load(given.workload, given.found))
        message = executor.wait()
        if message is None or not isinstance(message[1], Loaded):
            yield held("the host loads a base model", False, str(message))
            return
        one = _trained(executor, given, place, "one", both[:1], "off")
        for shard, what in (("off", WHAT), ("full", "and with its frozen layers spread over both")):
            yield _compared(what, one, _trained(executor, given, place, shard, both, shard))
    finally:
        executor.close()


def _trained(
    executor: LocalExecutor, given: Prepared, place: Place, name: str, devices: tuple[str, ...], shard: str
) -> Ran:  # fmt: skip
    spec = given.spec(
        place.folder / name, devices[0], examples=BATCH * place.size(20, 2), devices=len(devices), shard=shard,
        batch_size=BATCH, micro_batch_size=ROWS_AT_A_TIME, evaluations=1, logging_steps=1,
    )  # fmt: skip
    return trained(executor, given, [replace(spec, devices=devices, metric="loss", direction="minimize")])[0]


def _compared(what: str, one: Ran, two: Ran) -> Row:
    """Losses of the steps and of the evaluation."""
    if one.result is None or two.result is None:
        return held(what, False, str(one.failed or two.failed))
    off = furthest([*_losses(two), two.result.metrics["loss"]], [*_losses(one), one.result.metrics["loss"]])
    return held(what, off <= BOUND, f"{off:.1e} apart, at most {BOUND:g}", losses_apart=off)


def _losses(ran: Ran) -> list[float]:
    return [report.loss for _, report in ran.reports if isinstance(report, Step) and report.loss is not None]
