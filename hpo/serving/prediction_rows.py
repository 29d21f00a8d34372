"""Predictions as rows of the log, which train once a person has written down what is right; and refused prompts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from hpo.serving.gate import Passage, RefusedText
from hpo.serving.prediction_log import PredictionLog
from hpo.serving.served import Served

ANSWER_KEYS: Mapping[str, str] = {
    "text-classification": "label", "multi-label-classification": "labels", "regression": "value",
    "text-similarity": "value", "causal-lm": "text", "text-to-text": "output",
}  # fmt: skip
"""Task -> the key of a training row that says what is right. It is null in the log, and a null there is refused in
training: no prediction is learned as if it were the truth. The other tasks have more than one such key, or a place."""


def log_judged(
    log: PredictionLog, served: Served, columns: Mapping[str, str], answer: Mapping[str, Any], ms: float
) -> None:
    """Write down what a model said of an input."""
    text = "\n".join(columns.values())
    is_whole = log.has_texts
    row = {
        **_head(served, ms), "characters": len(text),
        "predicted": dict(answer) if is_whole and "embedding" not in answer else _without_texts(answer),
    }  # fmt: skip
    log.add(row | (_asked(served.release.card.task, columns, answer) if is_whole else {}), text)


class Written(NamedTuple):
    """An answer that has ended, as far as filters let it pass."""

    text: str
    finish_reason: str
    prompt_tokens: int
    tokens: int


def log_written(log: PredictionLog, served: Served, asked: Mapping[str, Any], written: Written, ms: float) -> None:
    """Write down an answer to a chat, or to the columns of a prompt."""
    is_chat = served.release.card.task == "chat"  # a column may be called `messages` too
    texts = [said["content"] for said in asked["messages"]] if is_chat else asked.values()
    prompt = "\n".join(texts)
    row = {
        **_head(served, ms), "characters": len(prompt), "tokens": written.prompt_tokens,
        "predicted": {
            **({"text": written.text} if log.has_texts else {}), "characters": len(written.text),
            "tokens": written.tokens, "finish_reason": written.finish_reason,
        },
    }  # fmt: skip
    log.add(row | (_asked(served.release.card.task, asked, {}) if log.has_texts else {}), prompt)


@contextmanager
def refusals_logged(log: PredictionLog | None, served: Served, passages: Sequence[Passage]) -> Iterator[None]:
    """Write down what filters refuse of these prompts while inside, as far as it is drawn."""
    began = time.perf_counter()
    try:
        yield
    finally:
        for passage in passages:
            if passage.refused is not None and log is not None and log.is_drawn():
                _log_refused(log, served, passage.refused, 1000 * (time.perf_counter() - began))


def _log_refused(log: PredictionLog, served: Served, refused: RefusedText, ms: float) -> None:
    """A row without a prediction, and with no key of a training row: nothing is learned from it."""
    of = {"filter": refused.filter, "categories": list(refused.categories)}
    text = {"text": refused.text} if log.has_texts else {}
    log.add({**_head(served, ms), "characters": len(refused.text), "refused": {**of, **text}}, refused.text)


def _head(served: Served, ms: float) -> dict[str, Any]:
    return {
        "model": served.name, "release": served.hashes.get("release"), "task": served.release.card.task,
        "ms": round(ms, 1),
    }  # fmt: skip


def _asked(task: str, columns: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a training row, without what is right: a person writes that down."""
    if task == "causal-lm":
        return {"prompt": next(iter(columns.values())), "text": None}
    if task == "token-classification":
        is_plain = "tags" in answer
        return (
            {"words": [tag["text"] for tag in answer["tags"]], "tags": None}
            if is_plain
            else {**columns, "entities": None}
        )
    given = {name: value for name, value in columns.items() if value is not None}  # a chat may have no tools
    return {**given, **({ANSWER_KEYS[task]: None} if task in ANSWER_KEYS else {})}


def _without_texts(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer without the parts of the input that it quotes."""
    if "embedding" in answer:
        return {"size": len(answer["embedding"])}
    if "entities" in answer:
        return {"entities": [{"label": one["label"], "score": one["score"]} for one in answer["entities"]]}
    if "tags" in answer:
        return {"tags": [{"tag": one["tag"], "score": one["score"]} for one in answer["tags"]]}
    return dict(answer)
