"""Beam search: of several answers that are written side by side, the one with the best score.

It chooses what transformers' `generate(num_beams=...)` chooses for one text, with the model's own length penalty and
rule for the end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from .scores import Floats, log_softmax
from .token_rules import TokenRules

_NEVER = -1e9
"""The score of what must not be chosen: beams that are still equal to the first one."""


@dataclass(frozen=True)
class Beams:
    """How many answers are written side by side, and which one is taken."""

    width: int = 1
    length_penalty: float = 1.0
    """A whole answer's score is the sum of its log probabilities over its length to this power."""
    early_stopping: bool | str = False
    """When `width` answers are whole, the search ends: at once (true), when the best of the others scores no better at
    its present length (false), or when it could not score better at any length (`never`)."""

    @classmethod
    def of(cls, generation: Mapping[str, Any]) -> Self:
        """As a card's `generation` says; those of earlier releases say nothing of beams."""
        return cls(
            generation.get("num_beams", 1),
            generation.get("length_penalty", 1.0),
            generation.get("early_stopping", False),
        )


class _Draft(NamedTuple):
    score: float
    ids: tuple[int, ...]


class BeamSearch:
    """One search: `take` the logits of all beams, then give the model `last`, after its cache follows `parents`."""

    def __init__(self, beams: Beams, start: int, most: int, ends: Collection[int], rules: TokenRules) -> None:
        """An answer begins after `start`, has at most `most` tokens by its `rules`, and ends with one of `ends`."""
        self._beams, self._most, self._ends, self._rules = beams, most, frozenset(ends), rules
        self._open = [_Draft(0.0, ()), *[_Draft(_NEVER, ())] * (beams.width - 1)]
        self._whole: list[_Draft] = []
        self.last: npt.NDArray[np.int64] = np.full((beams.width, 1), start, dtype=np.int64)
        """Each beam's newest token, int64 [beams, 1]."""
        self.parents: npt.NDArray[np.int64] = np.arange(beams.width)
        """The beam that each beam continues."""

    @property
    def answer(self) -> list[int]:
        """The best answer that is whole, with the token that ends it unless its length does."""
        return list(self._whole[0].ids)

    def take(self, logits: Floats) -> bool:
        """Choose the next token of each beam by its logits, float32 [beams, vocabulary]; whether the search is over."""
        length, width = len(self._open[0].ids) + 1, self._beams.width
        candidates = self._best(self._scores(logits))
        drafts = [_Draft(score, (*self._open[beam].ids, token)) for score, beam, token in candidates]
        is_whole = [draft.ids[-1] in self._ends or length == self._most for draft in drafts]
        # Candidates beyond the first `width` are there to go on with, where better ones are whole.
        ended = [draft for draft, ends in zip(drafts[:width], is_whole, strict=False) if ends]
        scored = [_Draft(self._scored(draft.score, length), draft.ids) for draft in ended]
        self._whole = sorted([*self._whole, *scored], key=lambda draft: -draft.score)[:width]
        left = [place for place, ends in enumerate(is_whole) if not ends][:width]
        if not left or self._is_decided(drafts[left[0]].score, length):
            return True
        self._open = [drafts[place] for place in left]
        self.last = np.array([[draft.ids[-1]] for draft in self._open], dtype=np.int64)
        self.parents = np.array([candidates[place][1] for place in left], dtype=np.int64)
        return False

    def _scores(self, logits: Floats) -> npt.NDArray[np.float64]:
        """The score of each beam with each token after it."""
        drafts = zip(log_softmax(logits), self._open, strict=True)
        return np.array([self._rules.applied(scores, draft.ids) + draft.score for scores, draft in drafts])

    def _best(self, scores: npt.NDArray[np.float64]) -> list[tuple[float, int, int]]:
        """Score, beam and token of the best candidates: enough to go on when every beam ends with every end."""
        count = min(self._beams.width * (1 + max(1, len(self._ends))), scores.size)
        flat = scores.ravel()
        some = np.argpartition(-flat, count - 1)[:count]
        some = some[np.argsort(-flat[some], kind="stable")]
        beams, tokens = np.divmod(some, scores.shape[1])
        return list(zip(flat[some].tolist(), beams.tolist(), tokens.tolist(), strict=True))

    def _scored(self, score: float, length: int) -> float:
        return float(score / length**self._beams.length_penalty)

    def _is_decided(self, best: float, length: int) -> bool:
        """Whether no beam will be better than the answers that are whole."""
        if len(self._whole) < self._beams.width:
            return False
        if self._beams.early_stopping is True:
            return True
        grows = self._beams.early_stopping == "never" and self._beams.length_penalty > 0
        return self._scored(best, self._most if grows else length) <= self._whole[-1].score
