"""A writing model behind a queue: one loop of steps, in which every answer under way gets its next token.

An answer joins between two steps and leaves between two steps; nobody waits for the longest. A prompt is read in
chunks, one between two steps, in a row of its own, and then moves to the rows that are written. That row remembers the
last prompt: what the next one has in common with it, such as a system prompt, is not read again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from hpo.serving.answer import Answer
from hpo.serving.answer_loop import AnswerLoop
from hpo.serving.limits import Limits
from hpo.serving.refusal import Refusal
from hpo.serving.slots import bytes_per_row, slots_for
from trainers.runtime.bundle import Bundle
from trainers.runtime.write import Writer

# A chunk holds up every answer under way: 64 tokens of SmolLM2 take as long as some six steps, and longer chunks read
# no faster.
_CHUNK = 64


class StepLoop(AnswerLoop):
    """Writes the answers of one model, or of all adapters of a bundle, all at once."""

    def __init__(self, release: Writer | Bundle, limits: Limits) -> None:
        affordable = limits.cache_bytes // bytes_per_row(release) - 1
        super().__init__(release, max(1, min(limits.rows, affordable)), limits)
        self._slots = slots_for(release, self._rows + 1)
        self._read: list[int] = []
        """The tokens in the row for prompts, which is the last one."""
        self._read_by = ""
        """The hash of the adapter that has read them: another one would have made other keys and values."""
        self._start()

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
        self.meter.first_token.add(time.perf_counter() - answer.began)
        if not self._gives(answer, partial(answer.take, logits[0, -1])):
            self._slots.copy(self._rows, len(self._written), len(self._read))
            self._written.append(answer)
        self._reading = None

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
            if self._gives(self._written[row], partial(self._written[row].take, logits[row, 0])):
                self._leave(row)

    def _leave(self, row: int) -> None:
        """Free a row: the last one moves there, so that the rows stay side by side."""
        last = self._written.pop()
        if row < len(self._written):
            self._slots.copy(len(self._written), row, _length(last))
            self._written[row] = last
        self._slots.free(len(self._written))

    def _fail(self, error: Refusal) -> None:
        super()._fail(error)
        self._read = []


def _length(answer: Answer) -> int:
    """How many tokens of an answer are in the cache: all but the last one, which the next step reads."""
    return len(answer.prompt_ids) + len(answer.ids) - 1


def _sessions(answers: Sequence[Answer]) -> list[Any]:
    """What runs each answer's row, where they are of the adapters of a bundle; else nothing."""
    return [answer.session for answer in answers if answer.session is not None]
