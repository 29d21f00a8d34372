"""Which token an answer must, or must not, have next, as the generation config of its base model says.

The rules are transformers': `forced_bos_token_id`, `forced_eos_token_id`, `min_length`, `no_repeat_ngram_size`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .scores import Floats


@dataclass(frozen=True)
class TokenRules:
    """Of answers of one length at most; without any, every token may come."""

    start: int | None = None
    """The token that every answer begins after; it counts as one of its tokens."""
    ends: frozenset[int] = frozenset()
    forced: Mapping[int, int] = field(default_factory=dict)
    """Tokens by their place, counted from 0 after the start."""
    min_length: int = 0
    """No answer of fewer tokens ends."""
    no_repeat_ngram_size: int = 0
    """So many tokens in a row are never written twice; 0 for no such rule."""

    def applied(self, scores: Floats, ids: Sequence[int]) -> Floats:
        """Scores of the next token after `ids`, [vocabulary], with minus infinity for what must not come."""
        place = len(ids)
        if (token := self.forced.get(place)) is not None:
            only = np.full_like(scores, -np.inf)
            only[token] = 0.0
            return only
        written = list(ids) if self.start is None else [self.start, *ids]
        refused = list(self._repeats(written))
        if len(written) < self.min_length:
            refused += self.ends
        if not refused:
            return scores
        scores = scores.copy()
        scores[refused] = -np.inf
        return scores

    def _repeats(self, written: Sequence[int]) -> Iterator[int]:
        """Tokens that would end a run which was written before."""
        size = self.no_repeat_ngram_size
        if not 0 < size <= len(written):
            return
        last = tuple(written[len(written) - size + 1 :])
        for at in range(len(written) - size + 1):
            if tuple(written[at : at + size - 1]) == last:
                yield written[at + size - 1]
