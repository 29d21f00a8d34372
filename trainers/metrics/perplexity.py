"""Perplexity from per-row results: (sum of negative log-likelihoods, target tokens, correct tokens, target bytes)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def perplexity_metrics(rows: npt.NDArray[np.float64], labels: Sequence[str] = ()) -> dict[str, float]:
    """Loss in nats per token, perplexity, bits per byte and token accuracy of `rows`, shape [rows, 4].

    Loss and perplexity have standard errors. A row (a conversation) is the sampling unit, because its tokens are not
    independent. The loss is a ratio of sums, so its variance is that of the ratio estimator (Cochran, Sampling
    Techniques, 3rd ed., section 6.4): sum((nll_i - loss * tokens_i)^2) / tokens^2 * rows / (rows - 1).
    """
    nll, tokens, hits, size = rows.T
    total, length = float(tokens.sum()), float(size.sum())
    if not total:
        return dict.fromkeys(("perplexity", "loss", "token_accuracy", "bits_per_byte"), math.nan)
    loss = float(nll.sum()) / total
    perplexity = math.exp(min(loss, 700.0))
    results = {"perplexity": perplexity, "loss": loss, "token_accuracy": float(hits.sum()) / total}
    if length:
        results["bits_per_byte"] = float(nll.sum()) / math.log(2) / length
    if len(rows) > 1:  # one row does not show how rows vary
        squares = float(((nll - loss * tokens) ** 2).sum())
        stderr = math.sqrt(squares * len(rows) / (len(rows) - 1)) / total
        results |= {"perplexity_stderr": perplexity * stderr, "loss_stderr": stderr}
    return results
