"""A model that writes behind a queue: answers join between two steps and leave between two steps, in one thread."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from hpo.serving.answer import Answer
from hpo.serving.limits import Limits
from hpo.serving.refusal import Refusal, overloaded
from hpo.serving.schemas import Schemas
from hpo.serving.worker import Worker
from trainers.runtime.release import Release


class AnswerLoop(Worker):
    """Writes the answers of one model, several at once. How one step is made is each kind's own."""

    def __init__(self, served: Release, rows: int, limits: Limits) -> None:
        """`rows` is how many answers, or beams of answers, are written at once."""
        super().__init__("steps", served)
        self.schemas = Schemas(served.tokenizer, served.card.eos_token_ids)
        self._limits = limits
        self._rows = rows
        self._waiting: deque[Answer] = deque()
        self._coming = 0
        """Answers that have a place in the queue and are not there yet. Used in the event loop alone."""
        self._reading: Answer | None = None
        self._written: list[Answer] = []
        """The answer of each row, from the first on."""

    @contextmanager
    def room(self, count: int) -> Iterator[None]:
        """Places in the queue for `count` answers, while filters judge their prompts and until they are added.

        Raises `Refusal` (503) where it is full.
        """
        self._check_room(len(self._waiting) + self._coming, count)
        self._coming += count
        try:
            yield
        finally:
            self._coming -= count

    def add(self, answers: Sequence[Answer]) -> None:
        """Queue answers; what has `room` finds it. Raises `Refusal` (503) where there is none for all of them."""
        with self._changed:
            self._check_room(len(self._waiting), len(answers))
            self._waiting.extend(answers)
            self._changed.notify()

    def _check_room(self, waiting: int, count: int) -> None:
        if waiting + count > self._limits.waiting_answers:
            self.meter.refused += 1
            raise overloaded(waiting)

    def _work(self) -> None:
        while self._admit():
            try:
                if self._reading is not None:
                    self._read_chunk(self._reading)
                if self._written:
                    self._step()
            except Exception as error:  # noqa: BLE001  # onnxruntime raises direct subclasses of Exception
                self._fail(self._failure(error))

    def _admit(self) -> bool:
        """Drop what nobody reads, begin the next prompt where a row is free, and wait for work; False at the end."""
        with self._changed:
            while not self._is_closed:
                self._drop_abandoned()
                if self._reading is None and self._waiting and self._has_room(self._waiting[0]):
                    self._begin(self._waiting.popleft())
                self.meter.waiting = len(self._waiting)
                self.meter.running = len(self._written) + (self._reading is not None)
                if self.meter.running:
                    return True
                self._changed.wait()
            return False

    def _has_room(self, answer: Answer) -> bool:
        """Whether there are rows for it; the widest search begins when nothing else is under way."""
        return not self._written or sum(other.rows for other in self._written) + answer.rows <= self._rows

    def _drop_abandoned(self) -> None:
        self._waiting = deque(answer for answer in self._waiting if not answer.is_abandoned)
        if self._reading is not None and self._reading.is_abandoned:
            self._reading = None
        for row in reversed(range(len(self._written))):
            if self._written[row].is_abandoned:
                self._leave(row)

    @abstractmethod
    def _begin(self, answer: Answer) -> None:
        """Make an answer the one that is read. Called while `_changed` is held: what takes time comes later."""

    @abstractmethod
    def _read_chunk(self, answer: Answer) -> None:
        """Read some of its prompt; with the last part it gets its first token and its row."""

    @abstractmethod
    def _step(self) -> None:
        """Give every answer under way its next token."""

    @abstractmethod
    def _leave(self, row: int) -> None:
        """Free a row, so that the others stay side by side."""

    def _gives(self, answer: Answer, step: Callable[[], str | None]) -> bool:
        """Let an answer take its next token; whether it ends with it."""
        before = len(answer.ids)
        reason = step()
        answer.last = time.perf_counter()
        self.meter.generation_tokens += len(answer.ids) - before
        if reason:
            self.meter.finish(reason, answer.last - answer.began)
        return reason is not None

    def _fail(self, error: Refusal) -> None:
        """End everything under way with an error; what waits goes on."""
        for answer in [*self._written, *([self._reading] if self._reading else [])]:
            answer.fail(error)
        self._written, self._reading = [], None
