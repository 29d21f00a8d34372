"""A filter that is a released classifier: it refuses a text of which a label is likely enough."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tokenizers import Tokenizer

from hpo.config.serve_config import Hold
from hpo.serving.filters import Exchange, Filter, Verdict, certain_by
from hpo.serving.judge import Judge
from hpo.serving.limits import Limits
from trainers.runtime.classify import Classifier

_TOGETHER = 64
"""Parts of one long text that wait for the model at once."""


class ClassifierFilter(Filter):
    """Asks a classifier about each text, in parts where it is longer than the model reads."""

    def __init__(self, name: str, release: Classifier, thresholds: Mapping[str, float], hold: Hold) -> None:
        super().__init__(name)
        self._judge = Judge(release, Limits())
        self._thresholds = thresholds
        self._hold = hold
        # All requests together fill the queue of its model and never overflow it: each waits here for its turn.
        self._turns = asyncio.Semaphore(Limits().waiting_inputs // _TOGETHER)
        self._tokenizer = _overlapping(release)

    def certain(self, text: str) -> int:
        return certain_by(self._hold, text)

    async def judge(self, exchange: Exchange) -> Verdict:
        likely = dict.fromkeys(self._thresholds, 0.0)
        parts = await asyncio.to_thread(self._parts, exchange.text)
        for start in range(0, len(parts), _TOGETHER):
            async with self._turns:
                judged = await self._judge.answer(parts[start : start + _TOGETHER])
            for answer in judged.answers:
                likely = {label: max(most, answer["scores"][label]) for label, most in likely.items()}
        over = [label for label, most in likely.items() if most >= self._thresholds[label]]
        text = "" if over else exchange.text
        return Verdict(text, {label: "refused" if label in over else "allowed" for label in likely})

    def close(self) -> None:
        self._judge.close()

    def _parts(self, text: str) -> list[str]:
        """The text in overlapping parts that the model reads whole; blank parts say nothing."""
        first = self._tokenizer.encode(text)
        spans = [encoding.offsets for encoding in (first, *first.overflowing)]
        parts = [
            text[min(s for s, e in span if e) : max(e for _, e in span)] for span in spans if any(e for _, e in span)
        ]
        return [part for part in parts if part.strip()]


def _overlapping(release: Classifier) -> Tokenizer:
    """The release's tokenizer, which cuts a long text into parts that share a quarter of their tokens."""
    tokenizer = Tokenizer.from_str(release.tokenizer.to_str())
    room = release.card.max_length - tokenizer.num_special_tokens_to_add(is_pair=False)
    tokenizer.enable_truncation(release.card.max_length, stride=max(0, room // 4))
    return tokenizer
