"""A judging model behind a queue: what waits is answered in batches, several at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from hpo.serving.limits import Limits
from hpo.serving.pool import Pool, Row
from hpo.serving.refusal import overloaded
from hpo.serving.worker import Worker
from trainers.runtime.bundle import Bundle
from trainers.runtime.encoder import Encoder, Reading
from trainers.runtime.options import calls_at_once

_SHORT = 1000
"""Characters of a text that is read at once, for it takes no longer than the way to another thread and back."""


class Judged(NamedTuple):
    """The answers to one request."""

    answers: list[dict[str, Any]]
    """In the order of the inputs, as `Release.predict` gives them."""
    readings: list[Reading]
    """The inputs as the model read them."""

    @property
    def tokens(self) -> int:
        """How many tokens the inputs have."""
        return sum(reading.tokens for reading in self.readings)


class _Request:
    """The inputs of one request, and the answers that there are so far."""

    def __init__(self, release: Encoder, readings: Sequence[Reading]) -> None:
        self.release = release
        self.readings = readings
        self.answers: list[dict[str, Any] | None] = [None] * len(readings)
        self.left = len(readings)
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()

    def settle(self, error: Exception | None = None) -> None:
        """Wake the request; called from a thread of the worker."""
        with suppress(RuntimeError):  # the loop was closed meanwhile: the server has ended, and nobody waits
            self._loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, error: Exception | None) -> None:
        if self.done.done():  # cancelled: the client has gone
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class Judge(Worker):
    """Answers requests for one judging model, or for all adapters of a bundle, whose rows share batches.

    No request waits for others to come: a batch is made of what is there when a thread has finished the one before.
    Threads that have nothing to do share it.
    """

    def __init__(self, release: Encoder | Bundle, limits: Limits) -> None:
        super().__init__("judge", release, calls_at_once(release.card))
        self._release = release
        self._limits = limits
        self._pool: Pool[_Request] = Pool()
        self._idle = 0
        """Threads that wait for work; those that were just woken up are among them."""
        self._start()

    @contextmanager
    def room(self, count: int) -> Iterator[None]:
        """Places in the queue for `count` inputs while inside. Raises `Refusal` (503) where it is full."""
        if self.meter.held + count > self._limits.waiting_inputs:
            self.meter.refused += 1
            raise overloaded(self.meter.held)
        self.meter.held += count
        try:
            yield
        finally:
            self.meter.held -= count

    async def answer(self, inputs: Sequence[Any], release: Encoder | None = None) -> Judged:
        """The answers to the inputs of one request; `release` is the one of an adapter, where a bundle is served.

        Raises `Refusal` (503) where the queue is full, and `ValueError` for an input that the task does not accept.
        Cancelling it frees its place in the queue.
        """
        with self.room(len(inputs)):
            return await self.answer_in_room(inputs, release)

    async def answer_in_room(self, inputs: Sequence[Any], release: Encoder | None = None) -> Judged:
        """`answer` for a request that has `room` already."""
        began = time.perf_counter()
        asked = release or self._release
        assert isinstance(asked, Encoder)  # noqa: S101  # a bundle is asked for one of its adapters
        readings = await _read(asked, inputs)
        request = _Request(asked, readings)
        try:
            with self._changed:
                self._pool.add(request, [reading.tokens for reading in readings])
                self._changed.notify(len(readings))
            await request.done
        finally:
            with self._changed:
                self._pool.discard(request)
        judged = Judged([answer for answer in request.answers if answer is not None], readings)
        self.meter.prompt_tokens += judged.tokens
        self.meter.finish("stop", time.perf_counter() - began)
        return judged

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._is_closed or len(self._pool)):
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                if self._is_closed:
                    return
                batch = self._pool.take(self._release.tokens_per_batch, 1 + self._idle)
                self.meter.running += len(batch)
            self._answer(batch)

    def _answer(self, batch: Sequence[Row[_Request]]) -> None:
        """Answer a batch. What onnxruntime raises ends its requests, and not the worker."""
        try:
            answers = self._answers(batch)
        except Exception as error:  # noqa: BLE001  # direct subclasses of Exception
            failure = self._failure(error)
            with self._changed:
                self.meter.running -= len(batch)
            for request in {row.owner for row in batch}:
                request.settle(failure)
            return
        with self._changed:  # other rows of these requests may be answered by another thread
            self.meter.batches += 1
            self.meter.running -= len(batch)
            for row, answer in zip(batch, answers, strict=True):
                row.owner.answers[row.place] = answer
                row.owner.left -= 1
                if not row.owner.left:
                    row.owner.settle()

    def _answers(self, batch: Sequence[Row[_Request]]) -> list[dict[str, Any]]:
        if isinstance(self._release, Bundle):
            return self._release.answered([(row.owner.release, row.owner.readings[row.place]) for row in batch])
        return self._release.answered([row.owner.readings[row.place] for row in batch])


async def _read(release: Encoder, inputs: Sequence[Any]) -> list[Reading]:
    """The inputs as tokens. A long text takes a second, in which others want answers: in another thread."""
    if len(inputs) == 1 and isinstance(inputs[0], str) and len(inputs[0]) <= _SHORT:
        return release.read(inputs)
    return await asyncio.to_thread(release.read, inputs)
