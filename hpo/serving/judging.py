"""`/v1/classify` and `/v1/embeddings`: inputs checked, judged in batches with those of other requests, and answered."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from starlette.responses import JSONResponse, Response

from hpo.serving.admission import admit_input, columns_of
from hpo.serving.bodies import ClassifyBody, EmbeddingBody
from hpo.serving.filters import as_json
from hpo.serving.judge import Judge, Judged
from hpo.serving.limits import Limits
from hpo.serving.prediction_log import PredictionLog
from hpo.serving.prediction_rows import log_judged, refusals_logged
from hpo.serving.refusal import bad_request, refusing
from hpo.serving.served import Served
from hpo.serving.watch import Watch
from trainers.runtime.embed import Embedder
from trainers.runtime.encoder import Encoder


async def answer_classify(served: Served, body: ClassifyBody, limits: Limits, watch: Watch) -> Response:
    """Judge inputs, in order. Raises `Refusal`."""
    if not isinstance(served.engine, Judge):
        path = "/v1/chat/completions" if served.release.card.chat_template else "/v1/completions"
        raise bad_request(f"{served.name} writes texts; use {path}", "model", "wrong_task")
    judged, filtered = await _judged(served, served.engine, body.inputs, limits, watch)
    data = [{"index": i, **answer, **filtered[i]} for i, answer in enumerate(judged.answers)]
    return _listed(served, judged, data)


async def answer_embeddings(served: Served, body: EmbeddingBody, limits: Limits, watch: Watch) -> Response:
    """Vectors for texts, in order. Raises `Refusal`."""
    if not isinstance(served.release, Embedder) or not isinstance(served.engine, Judge):
        raise bad_request(
            f"{served.name} is a model of {served.release.card.task}; it has no vectors", "model", "wrong_task"
        )
    texts = [{"text": text} for text in body.inputs]  # a text in braces is a text too
    judged, filtered = await _judged(served, served.engine, texts, limits, watch)
    data = [
        {
            "object": "embedding", "index": index, "embedding": _written(answer["embedding"], body.encoding_format),
            **filtered[index],
        }
        for index, answer in enumerate(judged.answers)
    ]  # fmt: skip
    return _listed(served, judged, data)


async def _judged(
    served: Served, engine: Judge, inputs: Sequence[Any], limits: Limits, watch: Watch
) -> tuple[Judged, list[dict[str, Any]]]:
    """The answers, and what filters decided of each input. Every answer of a model that judges comes from here."""
    if not 0 < len(inputs) <= limits.inputs:
        raise bad_request(f"input: expected 1 to {limits.inputs} inputs, got {len(inputs)}", "input")
    began = time.perf_counter()
    with refusing("input"), engine.room(len(inputs)):
        admitted, filtered = await _admitted(served, inputs, watch)
        judged = await engine.answer_in_room(admitted, _encoder(served))
    if watch.log is not None:
        _log(watch.log, served, judged, 1000 * (time.perf_counter() - began))
    return judged, filtered


async def _admitted(served: Served, inputs: Sequence[Any], watch: Watch) -> tuple[list[Any], list[dict[str, Any]]]:
    """The inputs as filters let them pass, and what they decided. Raises `Refusal`, and `ValueError` for bad inputs."""
    if not watch.gate:
        return list(inputs), [{}] * len(inputs)
    release = _encoder(served)
    readings = await asyncio.to_thread(release.read, inputs)
    passages = [watch.gate.passage(served.name, f"input {index}") for index in range(len(inputs))]
    asked = zip(passages, inputs, readings, strict=True)
    try:
        with refusals_logged(watch.log, served, passages):
            async with asyncio.TaskGroup() as group:  # with the first that is refused, the others end
                judging = [group.create_task(admit_input(one, release, *rest)) for one, *rest in asked]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in judging], [{"content_filter_results": as_json(one.decisions)} for one in passages]


def _log(log: PredictionLog, served: Served, judged: Judged, ms: float) -> None:
    """Write down those of the predictions that are drawn."""
    release = _encoder(served)
    for reading, answer in zip(judged.readings, judged.answers, strict=True):
        if log.is_drawn():
            log_judged(log, served, columns_of(release, reading), answer, ms)


def _encoder(served: Served) -> Encoder:
    """The release of a model that judges. Raises `Refusal` for any other."""
    if isinstance(served.release, Encoder):
        return served.release
    raise bad_request(f"{served.name} does {served.release.card.task}; it has no labels", "model", "wrong_task")


def _listed(served: Served, judged: Judged, data: Sequence[dict[str, Any]]) -> Response:
    usage = {"prompt_tokens": judged.tokens, "total_tokens": judged.tokens}
    return JSONResponse({"object": "list", "model": served.name, "data": data, "usage": usage})


def _written(vector: Sequence[float], encoding: str) -> Sequence[float] | str:
    if encoding == "float":
        return vector
    return base64.b64encode(np.array(vector, dtype="<f4").tobytes()).decode()
