"""Metrics of generated text from per-row results; a row whose answer was not generated holds NaN in all of them.

BLEU is of the corpus, so its counts are kept; the others are means over rows, so that rows can be resampled.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BLEU_ORDER = 4
BLEU_COLUMNS = (
    *(f"bleu_hits_{n}" for n in range(1, BLEU_ORDER + 1)),
    *(f"bleu_ngrams_{n}" for n in range(1, BLEU_ORDER + 1)),
    "words", "reference_words",
)  # fmt: skip
MEANS = ("exact_match", "rouge1", "rouge2", "rouge_l", "chrf")
COLUMNS = (*MEANS, *BLEU_COLUMNS)


def generated_metrics(rows: npt.NDArray[np.float64]) -> dict[str, float]:
    """`rows` has the shape [rows, len(COLUMNS)]. Means come with their standard errors; nothing generated is NaN."""
    told = rows[~np.isnan(rows).any(axis=1)]
    if not len(told):
        return dict.fromkeys((*MEANS, "bleu"), float("nan"))
    means = told[:, : len(MEANS)]
    results = {name: float(value) for name, value in zip(MEANS, means.mean(axis=0), strict=True)}
    if len(told) > 1:
        errors = means.std(axis=0, ddof=1) / np.sqrt(len(told))
        results |= {f"{name}_stderr": float(value) for name, value in zip(MEANS, errors, strict=True)}
    return {**results, "bleu": bleu(told[:, len(MEANS) :].sum(axis=0))}


def bleu(counts: npt.NDArray[np.float64]) -> float:
    """Corpus BLEU, 0 to 100, of summed `BLEU_COLUMNS` (Papineni et al. 2002).

    An order without a hit counts as a half, a quarter, ... of one, as sacrebleu's `exp` smoothing has it (Chen and
    Cherry 2014, method 3).
    """
    hits, ngrams = counts[:BLEU_ORDER], counts[BLEU_ORDER : 2 * BLEU_ORDER]
    words, reference_words = counts[2 * BLEU_ORDER :]
    if not ngrams.all() or not hits.any():  # shorter than four words altogether, or nothing in common
        return 0.0
    micro_batch_halvings = np.cumsum(hits == 0)
    precisions = np.where(hits == 0, 1 / 2.0**micro_batch_halvings, hits) / ngrams
    brevity = min(0.0, 1 - reference_words / words)
    return float(100 * np.exp(brevity + np.log(precisions).mean()))
