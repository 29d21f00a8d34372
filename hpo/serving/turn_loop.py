"""A model of text-to-text behind a queue: each answer under way takes its next step in turn.

Its graph knows one length for all rows, so that answers cannot share a call; the beams of one answer do. A text is read
once, however many answers it gets.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from hpo.serving.answer import Answer
from hpo.serving.answer_loop import AnswerLoop
from hpo.serving.limits import Limits
from hpo.serving.refusal import Refusal
from hpo.serving.slots import bytes_per_token
from trainers.runtime.beams import Beams
from trainers.runtime.rewrite import Rewriter


class _Draft(Protocol):
    """How one answer is written."""

    def step(self) -> str | None:
        """Go on by one token; the reason for the answer's end, or None."""
        ...


class _Drawn:
    """Token by token, greedily or at random."""

    def __init__(self, answer: Answer, release: Rewriter, text: Mapping[str, Any]) -> None:
        self._answer, self._start, self._cache = answer, release.start, release.cache(text)

    def step(self) -> str | None:
        last = self._answer.ids[-1] if self._answer.ids else self._start
        return self._answer.take(self._cache.extend(np.array([[last]], dtype=np.int64))[0, -1])


class _Searched:
    """With beams; what is best is known at the end."""

    def __init__(self, answer: Answer, beams: Beams, release: Rewriter, text: Mapping[str, Any]) -> None:
        self._answer, self._cache = answer, release.cache(text, beams.width)
        self._search = release.search(beams, answer.most)

    def step(self) -> str | None:
        if self._search.take(self._cache.extend(self._search.last)[:, -1]):
            return self._answer.give(self._search.answer)
        self._cache.follow(self._search.parents)
        return None


class TurnLoop(AnswerLoop):
    """Writes the answers of one model of text-to-text, several in turn."""

    def __init__(self, release: Rewriter, limits: Limits) -> None:
        affordable = limits.cache_bytes // (bytes_per_token(release.session) * release.card.max_length)
        super().__init__(release, max(1, min(limits.rows, affordable)), limits)
        self._release = release
        self._text_ids: list[int] = []
        """The tokens of the text that was read last."""
        self._text: Mapping[str, Any] = {}
        """What answers need of it."""
        self._drafts: list[_Draft] = []
        """How the answer of each row is written."""
        self._start()

    def _begin(self, answer: Answer) -> None:
        self._reading = answer
        self.meter.prompt_tokens += len(answer.text_ids)

    def _read_chunk(self, answer: Answer) -> None:
        """An encoder reads a text at once."""
        if answer.text_ids == self._text_ids:
            self.meter.prefix_tokens += len(self._text_ids)
        else:
            self._text_ids = []  # an encoder that fails has read nothing
            self._text = self._release.read(answer.text_ids)
            self._text_ids = answer.text_ids
        draft = self._draft_of(answer)
        self.meter.batches += 1
        is_over = self._gives(answer, draft.step)
        self._reading = None
        self.meter.first_token.add(answer.last - answer.began)
        if not is_over:
            self._written.append(answer)
            self._drafts.append(draft)

    def _draft_of(self, answer: Answer) -> _Draft:
        if answer.beams is None:
            return _Drawn(answer, self._release, self._text)
        return _Searched(answer, answer.beams, self._release, self._text)

    def _step(self) -> None:
        for row in reversed(range(len(self._written))):
            answer = self._written[row]
            self.meter.between_tokens.add(time.perf_counter() - answer.last)
            self.meter.batches += 1
            if self._gives(answer, self._drafts[row].step):
                self._leave(row)

    def _leave(self, row: int) -> None:
        del self._written[row], self._drafts[row]

    def _fail(self, error: Refusal) -> None:
        super()._fail(error)
        self._drafts = []
