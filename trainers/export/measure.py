"""Measures one released variant in onnxruntime: size, speed, difference from torch, and the task's metrics.

Run it in a separate process, in which nothing else runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainers.metrics.entities import entity_counts
from trainers.metrics.table import ROW_RESULTS, Rows
from trainers.runtime import CLASSIFYING, GENERATIVE, Card, Place, Release, log_softmax, sigmoid

Logits = npt.NDArray[np.float64]

_WARM_UP_CALLS = 5
_TEXTS_PER_BATCH = 256
_DECODED_TOKENS = 48


def measure(
    folder: Path,
    rows: Path,
    reference: Path | None = None,
    *,
    threads: int | None = None,
    latency_calls: int = 30,
    labels: Sequence[str] | None = None,
) -> dict[str, float]:
    """Measure the release in `folder` on `rows`, a JSONL file as the tasks' `measure_row` writes it.

    `reference` is a .npy file with torch's logits: [texts, labels] of the first rows, or [tokens, vocabulary or tags]
    of the first rows' tokens one after the other, which may end within a row. `labels` are the label names of the rows
    where they come from another sweep; labels are then matched by name.

    Returns `size_mb`, `load_seconds`, the task's metrics, and for one text `latency_p50_ms` and `latency_p95_ms`; for a
    generative model the latency is that of the first row's prefill, and there is `tokens_per_second`. With a reference
    there is `max_logit_diff`; for regression it is divided by the largest value where that is above 1. Raises
    `ReleaseError` for a folder that cannot be loaded, and `ValueError` for a release that cannot answer.
    """
    began = time.perf_counter()
    release = Release.load(folder, threads)
    numbers = {
        "size_mb": sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) / 1e6,
        "load_seconds": time.perf_counter() - began,
    }
    release.predict([release.card.example], max_new_tokens=1)
    with rows.open(encoding="utf-8") as lines:  # `splitlines` would also split at U+2028 and similar
        examples = [json.loads(line) for line in lines]
    if labels is not None:
        examples = _by_name(examples, labels, release.card)
    expected = None if reference is None else np.load(reference, allow_pickle=False)
    if release.card.task == "token-classification":
        return numbers | _measure_tags(release, examples, expected, latency_calls)
    measured = _measure_writing if release.card.task in GENERATIVE else _measure_verdicts
    return numbers | measured(release, examples, expected, latency_calls)


def _by_name(rows: Sequence[Any], labels: Sequence[str], card: Card) -> list[Any]:
    """Rows of another sweep with the label numbers of this release.

    Raises `ValueError` where it cannot classify them.
    """
    if unknown := [label for label in labels if label not in card.labels]:
        raise ValueError(f"it has no label {unknown[0]!r}")
    if card.task in CLASSIFYING and ("text_pair" in card.columns) != ("text_pair" in rows[0]):
        raise ValueError(f"it classifies {' with '.join(card.columns)}, but these rows have other columns")
    places = [card.labels.index(label) for label in labels]
    renamed = []
    for row in rows:
        if "label" in row:
            renamed.append({**row, "label": places[row["label"]]})
        elif "labels" in row:
            given = dict(zip(places, row["labels"], strict=True))
            renamed.append({**row, "labels": [given.get(place, 0) for place in range(len(card.labels))]})
        else:
            renamed.append(row)
    return renamed


def _measure_verdicts(
    release: Release, rows: Sequence[Any], expected: npt.NDArray[Any] | None, calls: int
) -> dict[str, float]:
    texts = [(row["text"], row["text_pair"]) if "text_pair" in row else row["text"] for row in rows]
    numbers = _latency(lambda i: release.row_logits([texts[i % len(texts)]]), calls)
    results = []
    for start in range(0, len(texts), _TEXTS_PER_BATCH):
        logits = release.row_logits(texts[start : start + _TEXTS_PER_BATCH]).astype(np.float64)
        results.append(_ROW_RESULTS[release.card.task](logits, rows[start : start + _TEXTS_PER_BATCH]))
    if expected is not None:
        # One text at a time, as in serving.
        ours = np.concatenate([release.row_logits([text]) for text in texts[: len(expected)]])
        # Values of a regression have a unit: divide by the largest one.
        unit = 1.0 if release.card.labels else max(1.0, float(np.abs(expected).max()))
        numbers["max_logit_diff"] = _max_difference(ours, expected) / unit
    return numbers | ROW_RESULTS[release.card.task].metrics(np.concatenate(results), release.card.labels)


def _of_classes(logits: Logits, rows: Sequence[Any]) -> Rows:
    true = np.array([row["label"] for row in rows], dtype=np.int64)
    logs = log_softmax(logits)
    columns = np.stack([true, logits.argmax(axis=1), -logs[np.arange(len(true)), true]], axis=1)
    return np.concatenate([columns, np.exp(logs)], axis=1)


def _of_labels(logits: Logits, rows: Sequence[Any]) -> Rows:
    true = np.array([row["labels"] for row in rows], dtype=np.float64)
    # -log(sigmoid) where the label is set, -log(1 - sigmoid) where it is not
    losses = np.logaddexp(0.0, np.where(true > 0, -logits, logits)).mean(axis=1)
    return np.concatenate([losses[:, None], true, sigmoid(logits)], axis=1)


def _of_values(logits: Logits, rows: Sequence[Any]) -> Rows:
    return np.stack([np.array([row["value"] for row in rows], dtype=np.float64), logits[:, 0]], axis=1)


_ROW_RESULTS: Mapping[str, Callable[[Logits, Sequence[Any]], Rows]] = {
    "text-classification": _of_classes, "multi-label-classification": _of_labels, "regression": _of_values,
}  # fmt: skip
"""Per-row results as the tasks' `score` gives them, from logits [rows, labels]."""


def _measure_tags(
    release: Release, rows: Sequence[Any], expected: npt.NDArray[Any] | None, calls: int
) -> dict[str, float]:
    labels = release.card.labels
    index = {label: number for number, label in enumerate(labels)}
    numbers = _latency(lambda i: release.word_logits(*_words(rows[i % len(rows)])), calls)
    of_words, every = [], []
    for number, row in enumerate(rows):
        logits, firsts = release.word_logits(*_words(row))
        every.append(logits)
        logs = log_softmax(logits[list(firsts.values())])
        true = np.array([index[row["tags"][word]] for word in firsts])
        losses = -logs[np.arange(len(true)), true]
        of_words.append(np.stack([np.full(len(true), number), true, logs.argmax(axis=1), losses], axis=1))
    if expected is not None:
        numbers["max_logit_diff"] = _max_difference(np.concatenate(every)[: len(expected)], expected)
    words = np.concatenate(of_words)
    of_row, true, predicted = words[:, :3].astype(np.int64).T
    results = entity_counts(of_row, true, predicted, words[:, 3], labels, len(rows))
    return numbers | ROW_RESULTS["token-classification"].metrics(results, labels)


def _words(row: Any) -> tuple[str, list[Place]]:
    return row["text"], [(start, end) for start, end in row["places"]]


def _measure_writing(
    release: Release, rows: Sequence[Any], expected: npt.NDArray[Any] | None, calls: int
) -> dict[str, float]:
    prompt = _typical_prompt(release, rows[0])
    numbers = _latency(lambda _: next(release.generate(prompt, 1), None), calls)
    numbers["tokens_per_second"] = _tokens_per_second(release, prompt)
    scores = [release.sequence_nll(row["input_ids"], row["loss_mask"]) for row in rows]
    sizes = [row["target_bytes"] for row in rows]
    results = np.array([[s.nll, s.tokens, s.hits, size] for s, size in zip(scores, sizes, strict=True)])
    if expected is not None:
        numbers["max_logit_diff"] = max(
            _max_difference(release.token_logits(ids), want) for ids, want in _aligned(rows, expected)
        )
    return numbers | ROW_RESULTS[release.card.task].metrics(results, [])


def _max_difference(ours: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    if ours.shape != expected.shape:  # numpy would broadcast some shapes
        raise ValueError(f"logits have shape {ours.shape}; the reference has shape {expected.shape}")
    return float(np.abs(ours - expected).max())


def _latency(call: Callable[[int], object], calls: int) -> dict[str, float]:
    for i in range(_WARM_UP_CALLS):
        call(i)
    milliseconds = []
    for i in range(calls):
        began = time.perf_counter()
        call(i)
        milliseconds.append((time.perf_counter() - began) * 1e3)
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return {"latency_p50_ms": float(p50), "latency_p95_ms": float(p95)}


def _typical_prompt(release: Release, row: Any) -> list[int]:
    """The end of a row from the data, as much of it as leaves space for an answer in the context."""
    room = release.card.max_length - min(_DECODED_TOKENS, release.card.max_length // 2)
    return list(row["input_ids"][-room:])


def _tokens_per_second(release: Release, prompt: Sequence[int]) -> float:
    """Tokens per second of decoding, measured from the first token on, without the prefill. An end of text does not end
    it: a model with short answers would be measured on a few tokens."""
    tokens = release.greedy_tokens(prompt, min(_DECODED_TOKENS, release.card.max_length // 2))
    next(tokens)
    began = time.perf_counter()
    count = sum(1 for _ in tokens)
    return count / (time.perf_counter() - began) if count else float("nan")


def _aligned(rows: Sequence[Any], expected: npt.NDArray[Any]) -> Iterator[tuple[list[int], npt.NDArray[Any]]]:
    """Pair the first rows with their part of the reference; the last one may be cut."""
    start = 0
    for row in rows:
        if start >= len(expected):
            return
        ids = row["input_ids"][: len(expected) - start]
        yield ids, expected[start : start + len(ids)]
        start += len(ids)
