"""Perplexity as a stream: exp of the token-weighted mean negative log-likelihood, with its standard error."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


class Perplexity:
    """Sums over rows; a row (a conversation) is the unit that varies, for its tokens are not independent."""

    def __init__(self) -> None:
        self._nll = self._tokens = self._nll2 = self._tokens2 = self._cross = 0.0
        self._rows = 0
        self._hits = 0.0

    def update(
        self, nll_sums: npt.NDArray[np.floating], token_counts: npt.NDArray[np.integer], hits: float = 0.0
    ) -> None:
        """Add rows: summed negative log-likelihood (nats) and target tokens of each, shape [rows]; `hits` counts
        target tokens that were the model's first choice."""
        nll, tokens = np.asarray(nll_sums, dtype=float), np.asarray(token_counts, dtype=float)
        self._nll += float(nll.sum())
        self._tokens += float(tokens.sum())
        self._nll2 += float((nll * nll).sum())
        self._tokens2 += float((tokens * tokens).sum())
        self._cross += float((nll * tokens).sum())
        self._rows += len(nll)
        self._hits += hits

    def results(self) -> dict[str, float]:
        """Loss in nats per token, perplexity, and both standard errors (of two rows and more).

        The mean is a ratio of sums, so its variance is that of the ratio estimator (Cochran, Sampling Techniques,
        3rd ed., section 6.4): sum((nll_i - loss * tokens_i)^2) / tokens^2 * rows / (rows - 1).
        """
        if not self._tokens:
            return {"perplexity": math.nan, "loss": math.nan, "token_accuracy": math.nan}
        loss = self._nll / self._tokens
        squares = self._nll2 - 2 * loss * self._cross + loss * loss * self._tokens2
        correction = self._rows / (self._rows - 1) if self._rows > 1 else math.nan
        stderr = math.sqrt(max(0.0, squares) * correction) / self._tokens if self._rows > 1 else math.nan
        perplexity = math.exp(min(loss, 700.0))
        results = {"perplexity": perplexity, "loss": loss, "token_accuracy": self._hits / self._tokens}
        if self._rows > 1:  # one row says nothing of how rows vary
            results |= {"perplexity_stderr": perplexity * stderr, "loss_stderr": stderr}
        return results
