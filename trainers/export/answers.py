"""A loaded release as it is measured: its answer to one row, its per-row results, its logits against torch's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trainers.metrics.entities import entity_counts
from trainers.metrics.table import Rows
from trainers.runtime.classify import Classifier
from trainers.runtime.embed import Embedder
from trainers.runtime.release import Release
from trainers.runtime.rewrite import Rewriter
from trainers.runtime.scores import log_softmax, sigmoid
from trainers.runtime.tag import Tagger
from trainers.runtime.words import Place
from trainers.runtime.write import Writer

Logits = npt.NDArray[np.float64]

_TEXTS_PER_BATCH = 256
_DECODED_TOKENS = 48
_TUNED_TOKENS = 8
"""Written after each prompt while session options are tried."""


class Answers(Protocol):
    """A release with the rows that it is measured on."""

    def call(self, number: int) -> object:
        """One answer as in serving; what latency is the time of."""
        ...

    def work(self, number: int) -> object:
        """What serving spends its time on: for a model that writes, a prompt of the data and a few tokens after it."""
        return self.call(number)

    def results(self, numbers: Sequence[int]) -> Rows:
        """Per-row results of these rows, [numbers, columns], as the tasks' `score` gives them."""
        ...

    def first_logits(self, expected: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Logits of as many first rows (or of their tokens) as torch's `expected` has; of cosines, these."""
        ...

    def tokens_per_second(self) -> float | None:
        """The speed of decoding; None for a release that does not generate."""
        ...


def answers_of(release: Release, rows: Sequence[Any]) -> Answers:
    """The release with `rows` in JSON, as the tasks' `measure_row` writes them."""
    if isinstance(release, Tagger):
        return _Tags(release, rows)
    if isinstance(release, Writer):
        return _Writing(release, rows)
    if isinstance(release, Classifier):
        return _Verdicts(release, rows)
    if isinstance(release, Embedder):
        return _Cosines(release, rows)
    if isinstance(release, Rewriter):
        return _Rewriting(release, rows)
    raise ValueError(f"a release of {release.card.task} is not measured by its rows")


class _Verdicts(Answers):
    def __init__(self, release: Classifier, rows: Sequence[Any]) -> None:
        self._release, self._rows = release, rows
        self._texts = [(row["text"], row["text_pair"]) if "text_pair" in row else row["text"] for row in rows]

    def call(self, number: int) -> object:
        return self._release.row_logits([self._texts[number % len(self._texts)]])

    def results(self, numbers: Sequence[int]) -> Rows:
        parts = []
        for start in range(0, len(numbers), _TEXTS_PER_BATCH):
            some = numbers[start : start + _TEXTS_PER_BATCH]
            logits = self._release.row_logits([self._texts[n] for n in some]).astype(np.float64)
            parts.append(_ROW_RESULTS[self._release.card.task](logits, [self._rows[n] for n in some]))
        return np.concatenate(parts)

    def first_logits(self, expected: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # One text at a time, as in serving.
        return np.concatenate([self._release.row_logits([text]) for text in self._texts[: len(expected)]])

    def tokens_per_second(self) -> None:
        return None


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


class _Cosines(Answers):
    def __init__(self, release: Embedder, rows: Sequence[Any]) -> None:
        self._release = release
        self._pairs = [(row["text"], row["text_pair"]) for row in rows]
        self._true = [row["value"] for row in rows]

    def call(self, number: int) -> object:
        return self._release.cosines([self._pairs[number % len(self._pairs)]])

    def results(self, numbers: Sequence[int]) -> Rows:
        parts = []
        for start in range(0, len(numbers), _TEXTS_PER_BATCH):
            some = numbers[start : start + _TEXTS_PER_BATCH]
            cosines = self._release.cosines([self._pairs[n] for n in some]).astype(np.float64)
            parts.append(np.stack([np.array([self._true[n] for n in some], dtype=np.float64), cosines], axis=1))
        return np.concatenate(parts)

    def first_logits(self, expected: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.stack([self._release.cosines([pair]) for pair in self._pairs[: len(expected)]])

    def tokens_per_second(self) -> None:
        return None


class _Tags(Answers):
    def __init__(self, release: Tagger, rows: Sequence[Any]) -> None:
        self._release, self._rows = release, rows
        self._index = {label: number for number, label in enumerate(release.card.labels)}

    def call(self, number: int) -> object:
        return self._release.word_logits(*_words(self._rows[number % len(self._rows)]))

    def results(self, numbers: Sequence[int]) -> Rows:
        of_words = []
        for place, row in enumerate(self._rows[number] for number in numbers):
            logits, firsts = self._release.word_logits(*_words(row))
            logs = log_softmax(logits[list(firsts.values())])
            true = np.array([self._index[row["tags"][word]] for word in firsts])
            losses = -logs[np.arange(len(true)), true]
            of_words.append(np.stack([np.full(len(true), place), true, logs.argmax(axis=1), losses], axis=1))
        words = np.concatenate(of_words)
        of_row, true, predicted = words[:, :3].astype(np.int64).T
        return entity_counts(of_row, true, predicted, words[:, 3], self._release.card.labels, len(numbers))

    def first_logits(self, expected: npt.NDArray[Any]) -> npt.NDArray[Any]:
        ours: list[npt.NDArray[Any]] = []
        for row in self._rows:
            if sum(map(len, ours)) >= len(expected):
                break
            ours.append(self._release.word_logits(*_words(row))[0])
        return np.concatenate(ours)[: len(expected)]

    def tokens_per_second(self) -> None:
        return None


def _words(row: Any) -> tuple[str, list[Place]]:
    return row["text"], [(start, end) for start, end in row["places"]]


class _Writing(Answers):
    def __init__(self, release: Writer, rows: Sequence[Any]) -> None:
        self._release, self._rows = release, rows
        self._prompt = _typical_prompt(release, rows[0])

    def call(self, number: int) -> object:
        return next(self._release.generate(self._prompt, 1), None)

    def work(self, number: int) -> object:
        prompt = _typical_prompt(self._release, self._rows[number % len(self._rows)])
        return list(self._release.greedy_tokens(prompt, min(_TUNED_TOKENS, self._release.card.max_length // 2)))

    def results(self, numbers: Sequence[int]) -> Rows:
        rows = [self._rows[number] for number in numbers]
        scores = [self._release.sequence_nll(row["input_ids"], row["loss_mask"]) for row in rows]
        return np.array(
            [[s.nll, s.tokens, s.hits, row["target_bytes"]] for s, row in zip(scores, rows, strict=True)], dtype=float
        )

    def first_logits(self, expected: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate([self._release.token_logits(ids) for ids in _first_tokens(self._rows, len(expected))])

    def tokens_per_second(self) -> float:
        return _tokens_per_second(self._release, self._prompt)


class _Rewriting(Answers):
    def __init__(self, release: Rewriter, rows: Sequence[Any]) -> None:
        self._release, self._rows = release, rows

    def call(self, number: int) -> object:
        row = self._rows[number % len(self._rows)]
        return list(self._release.target_logits(row["input"], self._release.target_ids(row["output"])))

    def work(self, number: int) -> object:
        return list(self._release.greedy_tokens(self._rows[number % len(self._rows)]["input"], _TUNED_TOKENS))

    def results(self, numbers: Sequence[int]) -> Rows:
        return np.array([self._result(self._rows[number]) for number in numbers], dtype=float)

    def _result(self, row: Any) -> list[float]:
        ids = self._release.target_ids(row["output"])
        said = self._release.answer_nll(row["input"], ids)
        target_bytes = len(self._release.tokenizer.decode(ids).encode())
        return [said.nll, said.tokens, said.hits, target_bytes]

    def first_logits(self, expected: npt.NDArray[Any]) -> npt.NDArray[Any]:
        ours: list[npt.NDArray[Any]] = []
        for row in self._rows:
            if sum(map(len, ours)) >= len(expected):
                break
            ours += self._release.target_logits(row["input"], self._release.target_ids(row["output"]))
        return np.concatenate(ours)[: len(expected)]

    def tokens_per_second(self) -> float:
        return _speed(self._release.greedy_tokens(self._rows[0]["input"], _DECODED_TOKENS))


def _typical_prompt(release: Writer, row: Any) -> list[int]:
    """The end of a row from the data, as much of it as leaves space for an answer in the context."""
    room = release.card.max_length - min(_DECODED_TOKENS, release.card.max_length // 2)
    return list(row["input_ids"][-room:])


def _tokens_per_second(release: Writer, prompt: Sequence[int]) -> float:
    return _speed(release.greedy_tokens(prompt, min(_DECODED_TOKENS, release.card.max_length // 2)))


def _speed(tokens: Iterator[int]) -> float:
    """Tokens per second of decoding, measured from the first token on, without the prefill. An end of text does not end
    it: a model with short answers would be measured on a few tokens."""
    next(tokens)
    began = time.perf_counter()
    count = sum(1 for _ in tokens)
    return count / (time.perf_counter() - began) if count else float("nan")


def _first_tokens(rows: Sequence[Any], count: int) -> Iterator[list[int]]:
    """The first rows, which have so many tokens together; the last one may be cut."""
    for row in rows:
        if count <= 0:
            return
        ids = row["input_ids"][:count]
        yield ids
        count -= len(ids)
