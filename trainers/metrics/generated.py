"""Metrics of generated text from per-row results; a row without a generated answer has NaN in all columns.

BLEU is computed on the corpus, so its counts are kept for each row. The other metrics are means over rows. So rows can
be resampled.
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
    """Means over rows with their standard errors, and corpus BLEU; all NaN where no row has a generated answer.

    `rows` has the shape [rows, len(COLUMNS)].
    """
    answered = rows[~np.isnan(rows).any(axis=1)]
    if not len(answered):
        return dict.fromkeys((*MEANS, "bleu"), float("nan"))
    means = answered[:, : len(MEANS)]
    results = {name: float(value) for name, value in zip(MEANS, means.mean(axis=0), strict=True)}
    if len(answered) > 1:
        errors = means.std(axis=0, ddof=1) / np.sqrt(len(answered))
        results |= {f"{name}_stderr": float(value) for name, value in zip(MEANS, errors, strict=True)}
    return {**results, "bleu": bleu(answered[:, len(MEANS) :].sum(axis=0))}


def bleu(counts: npt.NDArray[np.float64]) -> float:
    """Corpus BLEU, 0 to 100, from the sums of `BLEU_COLUMNS` (Papineni et al. 2002).

    The first n-gram order without a hit counts as 1/2 hit, the next as 1/4, and so on, as in sacrebleu's `exp`
    smoothing (Chen and Cherry 2014, method 3).
    """
    hits, ngrams = counts[:BLEU_ORDER], counts[BLEU_ORDER : 2 * BLEU_ORDER]
    words, reference_words = counts[2 * BLEU_ORDER :]
    if not ngrams.all() or not hits.any():  # fewer than four words in total, or no common word
        return 0.0
    halvings = np.cumsum(hits == 0)
    precisions = np.where(hits == 0, 1 / 2.0**halvings, hits) / ngrams
    brevity = min(0.0, 1 - reference_words / words)
    return float(100 * np.exp(brevity + np.log(precisions).mean()))
