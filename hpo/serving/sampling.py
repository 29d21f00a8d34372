"""Which token comes next: the most likely one, or one drawn by temperature and top_p."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainers.runtime.scores import Floats, log_softmax

# The most likely tokens hold almost all of the probability: sorting 1,024 of 49,152 takes a tenth of sorting all.
_LIKELY = 1024


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn."""

    temperature: float = 0.0
    """0 takes the most likely token."""
    top_p: float = 1.0
    """Draws from the fewest tokens whose probabilities reach this sum."""
    seed: int | None = None
    """Without one, no two answers are drawn alike."""


class Sampler:
    """Draws the tokens of one answer."""

    def __init__(self, sampling: Sampling, choice: int) -> None:
        """`choice` counts the answers to one prompt: each is drawn with random numbers of its own."""
        self._sampling = sampling
        seed = None if sampling.seed is None else [sampling.seed % 2**64, choice]
        self._random = np.random.default_rng(seed)

    def choose(self, logits: Floats) -> int:
        """The next token for logits, float32 [vocabulary]."""
        temperature = self._sampling.temperature
        best = int(logits.argmax())
        if temperature <= 0:
            return best
        # Relative to the best, so that a tiny temperature overflows to minus infinity, never to NaN.
        scaled = (logits.astype(np.float64) - float(logits[best])) / temperature
        chances = np.exp(scaled)
        chances /= chances.sum()
        tokens = self._nucleus(chances) if self._sampling.top_p < 1 else np.arange(len(chances))
        sums = chances[tokens].cumsum()
        return int(tokens[min(np.searchsorted(sums, self._random.random() * sums[-1], "right"), len(tokens) - 1)])

    def _nucleus(self, chances: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """The fewest tokens whose chances reach `top_p`, the most likely first."""
        top_p = self._sampling.top_p
        for count in (min(_LIKELY, len(chances)), len(chances)):
            some = np.argpartition(chances, -count)[-count:]
            some = some[np.argsort(-chances[some], kind="stable")]
            sums = chances[some].cumsum()
            if sums[-1] >= top_p:
                break
        return np.asarray(some[: int(np.searchsorted(sums, top_p)) + 1], dtype=np.int64)


def likeliest(logits: Floats, token: int, count: int) -> tuple[float, list[tuple[int, float]]]:
    """The log probability of a token, and the `count` most likely tokens with theirs, before any temperature."""
    scores = log_softmax(logits)
    best = np.argsort(-scores, kind="stable")[:count].tolist() if count else []
    return float(scores[token]), [(other, float(scores[other])) for other in best]
