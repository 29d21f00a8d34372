"""A writing model behind a queue: one loop of steps, in which every answer under way gets its next token.

An answer joins between two steps and leaves between two steps; nobody waits for the longest. A prompt is read in
chunks, one between two steps, in a row of its own, and then moves to the rows that are written. That row remembers the
last prompt: what the next one has in common with it, such as a system prompt, is not read again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from hpo.serving.answer import Answer
from hpo.serving.limits import Limits
from hpo.serving.refusal import Refusal, overloaded
from hpo.serving.slots import bytes_per_token, slots_for
from hpo.serving.worker import Worker
from trainers.runtime.bundle import Bundle
from trainers.runtime.scores import Floats
from trainers.runtime.write import Writer

# A chunk holds up every answer under way: 64 tokens of SmolLM2 take as long as some six steps, and longer chunks read
# no faster.
_CHUNK = 64


class StepLoop(Worker):
    """Writes the answers of one model, or of all adapters of a bundle, all at once."""

    def __init__(self, release: Writer | Bundle, limits: Limits) -> None:
        super().__init__("steps", release)
        self._limits = limits
        capacity = release.card.max_length
        affordable = limits.cache_bytes // (bytes_per_token(release.session) * capacity) - 1
        self._rows = max(1, min(limits.rows, affordable))
        self._slots = slots_for(release, self._rows + 1)
        self._waiting: deque[Answer] = deque()
        self._reading: Answer | None = None
        self._read: list[int] = []
        """The tokens in the row for prompts, which is the last one."""
        self._read_by = ""
        """The hash of the adapter that has read them: another one would have made other keys and values."""
        self._written: list[Answer] = []
        """The answer of each row, from the first on."""
        self._thread.start()

    def check_room(self, count: int) -> None:
        """Raise `Refusal` (503) where the queue has no room for `count` answers."""
        if len(self._waiting) + count > self._limits.waiting_answers:
            self.meter.refused += 1
            raise overloaded(len(self._waiting))

    def add(self, answers: Sequence[Answer]) -> None:
        """Queue answers. Raises `Refusal` (503) where there is no room for all of them."""
        with self._changed:
            self.check_room(len(answers))
            self._waiting.extend(answers)
            self._changed.notify()

    def _work(self) -> None:
        while self._admit():
            try:
                if self._reading is not None:
                    self._read_chunk(self._reading)
                if self._written:
                    self._step()
            except Exception as error:  # noqa: BLE001  # onnxruntime raises direct subclasses of Exception
                self._fail(Refusal(500, f"the model failed: {type(error).__name__}", code="model_failed"))

    def _admit(self) -> bool:
        """Drop what nobody reads, begin the next prompt where a row is free, and wait for work; False at the end."""
        with self._changed:
            while not self._is_closed:
                self._drop_abandoned()
                if self._reading is None and self._waiting and len(self._written) < self._rows:
                    self._begin(self._waiting.popleft())
                self.meter.waiting = len(self._waiting)
                self.meter.running = len(self._written) + (self._reading is not None)
                if self.meter.running:
                    return True
                self._changed.wait()
            return False

    def _drop_abandoned(self) -> None:
        self._waiting = deque(answer for answer in self._waiting if not answer.is_abandoned)
        if self._reading is not None and self._reading.is_abandoned:
            self._reading = None
        for row in reversed(range(len(self._written))):
            if self._written[row].is_abandoned:
                self._leave(row)

    def _begin(self, answer: Answer) -> None:
        """Keep what the row for prompts has in common with this one; the last token is read for its logits."""
        is_known = self._read_by == answer.adapter_hash
        common, most = 0, min(len(self._read), len(answer.prompt_ids) - 1) if is_known else 0
        while common < most and self._read[common] == answer.prompt_ids[common]:
            common += 1
        self._read, self._read_by = self._read[:common], answer.adapter_hash
        self._reading = answer
        self.meter.prefix_tokens += common
        self.meter.prompt_tokens += len(answer.prompt_ids)

    def _read_chunk(self, answer: Answer) -> None:
        chunk = answer.prompt_ids[len(self._read) :][:_CHUNK]
        before, self._read = len(self._read), [*self._read, *chunk]
        logits = self._slots.run(self._rows, np.asarray([chunk], dtype=np.int64), [before], _sessions([answer]))
        self.meter.batches += 1
        if len(self._read) < len(answer.prompt_ids):
            return
        self._reading = None
        self.meter.first_token.add(time.perf_counter() - answer.began)
        if not self._gives(answer, logits[0, -1]):
            self._slots.copy(self._rows, len(self._written), len(self._read))
            self._written.append(answer)

    def _step(self) -> None:
        """Give every answer under way its next token."""
        last = np.asarray([[answer.ids[-1]] for answer in self._written], dtype=np.int64)
        lengths = [_length(answer) for answer in self._written]
        logits = self._slots.run(0, last, lengths, _sessions(self._written))
        self.meter.batches += 1
        now = time.perf_counter()
        for answer in self._written:
            self.meter.between_tokens.add(now - answer.last)
        for row in reversed(range(len(self._written))):
            if self._gives(self._written[row], logits[row, 0]):
                self._leave(row)

    def _gives(self, answer: Answer, logits: Floats) -> bool:
        """Let an answer take its next token; whether it ends with it."""
        before = len(answer.ids)
        reason = answer.take(logits)
        answer.last = time.perf_counter()
        self.meter.generation_tokens += len(answer.ids) - before
        if reason:
            self.meter.finish(reason, answer.last - answer.began)
        return reason is not None

    def _leave(self, row: int) -> None:
        """Free a row: the last one moves there, so that the rows stay side by side."""
        last = self._written.pop()
        if row < len(self._written):
            self._slots.copy(len(self._written), row, _length(last))
            self._written[row] = last

    def _fail(self, error: Refusal) -> None:
        """End everything under way with an error; what waits goes on."""
        for answer in [*self._written, *([self._reading] if self._reading else [])]:
            answer.fail(error)
        self._written, self._reading, self._read = [], None, []


def _length(answer: Answer) -> int:
    """How many tokens of an answer are in the cache: all but the last one, which the next step reads."""
    return len(answer.prompt_ids) + len(answer.ids) - 1


def _sessions(answers: Sequence[Answer]) -> list[Any]:
    """What runs each answer's row, where they are of the adapters of a bundle; else nothing."""
    return [answer.session for answer in answers if answer.session is not None]
