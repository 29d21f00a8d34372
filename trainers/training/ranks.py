"""The processes that train one trial together, one for each device: their shares, sums and orders"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from trainers.memory import is_out_of_memory

T = TypeVar("T")
FOREVER = timedelta(days=365)
"""A rank waits for orders as long as it takes; whoever has forked the ranks ends them all when one of them dies."""
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
BUCKET = 1 << 24
"""Numbers that are added up at once: as much memory is needed besides the gradients themselves."""


class Ranks:
    """One of `count` processes that train a trial together, or the only one.

    Number 0 leads: it alone decides, writes and speaks. The others do what it orders.
    """

    def __init__(self, number: int = 0, count: int = 1, pids: Sequence[int] = ()) -> None:
        self.number = number
        self.count = count
        self._pids = pids

    @property
    def pids(self) -> Sequence[int]:
        """The process of each rank."""
        return self._pids or [os.getpid()]

    def order(self, what: str, rows: Sequence[int] = ()) -> None:
        """Have all others do the same; in any other rank than the leader this does nothing."""
        if self.number == 0:
            self._broadcast(0, [what, *rows])

    def next_order(self) -> tuple[str, list[int]]:
        """Wait for the leader's next order: what to do, and with which rows."""
        what, *rows = self._broadcast(0, None)
        return what, rows

    def share(self, items: Iterable[T]) -> Iterator[T]:
        """Every so many of the items, so that all ranks together have all."""
        return islice(items, self.number, None, self.count)

    def gather(self, value: list[Any]) -> list[list[Any]]:
        """The values of all ranks, by their numbers; plain values, as JSON has them."""
        return [self._broadcast(rank, value) for rank in range(self.count)]

    def add_up(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, in place of each one's values."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def total(self, number: float) -> float:
        """The sum of the numbers of all ranks."""
        return float(self.add_up(torch.tensor([number], dtype=torch.float64))) if self.count > 1 else number

    def add_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Sum the gradients of all ranks in each of them.

        A parameter that has a gradient in no rank has none afterwards either: optimizers leave it alone.
        """
        if self.count == 1:
            return
        having = self.add_up(torch.tensor([p.grad is not None for p in parameters], dtype=torch.int64)).tolist()
        for bucket in _buckets([p for p, ranks in zip(parameters, having, strict=True) if ranks]):
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            line = self.add_up(torch.cat([gradient.reshape(-1) for gradient in gradients]))
            parts = line.split([p.numel() for p in bucket])
            for parameter, gradient, part in zip(bucket, gradients, parts, strict=True):
                parameter.grad = gradient.copy_(part.view_as(gradient))

    def copy_leaders(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Give the parameters the leader's values in all ranks."""
        if self.count > 1:
            for parameter in parameters:
                dist.broadcast(parameter.data, 0)

    def _broadcast(self, rank: int, value: Any) -> Any:
        if self.count == 1:
            return value
        said = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        size = torch.tensor([len(said)])
        dist.broadcast(size, rank)
        if self.number != rank:
            said = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(said, rank)
        return json.loads(said.numpy().tobytes())


ALONE = Ranks()


def join(number: int, count: int, store: Path, device: str) -> Ranks:
    """Meet the other ranks through the file `store`, which all of them name and none has used before.

    They speak over loopback: gloo between CPUs and for orders, NCCL between GPUs.
    """
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = LOOPBACK
    dist.init_process_group(
        "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
        store=dist.FileStore(str(store), count), rank=number, world_size=count, timeout=FOREVER,
    )  # fmt: skip
    told = Ranks(number, count).gather([os.getpid()])
    return Ranks(number, count, [pid for [pid] in told])


def is_of_a_lost_rank(error: BaseException) -> bool:
    """Whether an error only says that another rank is gone: why that one has ended is told elsewhere. NCCL reports with
    the same type that a GPU has no memory left for its buffers."""
    is_of_others = isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
    return is_of_others and not is_out_of_memory(error)


def summing_bytes(parameters: Iterable[torch.nn.Parameter]) -> int:
    """What `Ranks.add_gradients` needs besides the gradients themselves: a copy of the largest bucket."""
    sizes = (sum(p.numel() * p.element_size() for p in bucket) for bucket in _buckets(parameters))
    return max(sizes, default=0)


def _buckets(parameters: Iterable[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """The parameters in order, in groups of one type and of about `BUCKET` numbers."""
    bucket: list[torch.nn.Parameter] = []
    for parameter in parameters:
        is_full = sum(p.numel() for p in bucket) + parameter.numel() > BUCKET
        if bucket and (is_full or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
