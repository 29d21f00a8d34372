"""Logits as probabilities, in float64."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]


def sigmoid(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The logistic function in float64, without overflow."""
    result: npt.NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))
    return result


def log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The log-softmax over the last axis, in float64: sums over large vocabularies lose digits in float32."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
