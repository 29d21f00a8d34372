"""`/v1/classify` and `/v1/embeddings`: inputs checked, judged in batches with those of other requests, and answered."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from starlette.responses import JSONResponse, Response

from hpo.serving.bodies import ClassifyBody, EmbeddingBody
from hpo.serving.judge import Judge, Judged
from hpo.serving.limits import Limits
from hpo.serving.refusal import bad_request
from hpo.serving.served import Served
from trainers.runtime.embed import Embedder
from trainers.runtime.encoder import Encoder


async def answer_classify(served: Served, body: ClassifyBody, limits: Limits) -> Response:
    """Judge inputs, in order. Raises `Refusal`."""
    if not isinstance(served.engine, Judge):
        path = "/v1/chat/completions" if served.release.card.chat_template else "/v1/completions"
        raise bad_request(f"{served.name} writes texts; use {path}", "model", "wrong_task")
    judged = await _judged(served, body.inputs, limits)
    return _listed(served, judged, [{"index": index, **answer} for index, answer in enumerate(judged.answers)])


async def answer_embeddings(served: Served, body: EmbeddingBody, limits: Limits) -> Response:
    """Vectors for texts, in order. Raises `Refusal`."""
    if not isinstance(served.release, Embedder) or not isinstance(served.engine, Judge):
        raise bad_request(
            f"{served.name} is a model of {served.release.card.task}; it has no vectors", "model", "wrong_task"
        )
    texts = [{"text": text} for text in body.inputs]  # a text in braces is a text too
    judged = await _judged(served, texts, limits)
    data = [
        {"object": "embedding", "index": index, "embedding": _written(answer["embedding"], body.encoding_format)}
        for index, answer in enumerate(judged.answers)
    ]
    return _listed(served, judged, data)


async def _judged(served: Served, inputs: Sequence[Any], limits: Limits) -> Judged:
    assert isinstance(served.engine, Judge) and isinstance(served.release, Encoder)  # noqa: S101, PT018  # they judge
    if not 0 < len(inputs) <= limits.inputs:
        raise bad_request(f"input: expected 1 to {limits.inputs} inputs, got {len(inputs)}", "input")
    try:
        return await served.engine.answer(inputs, served.release)
    except ValueError as error:
        raise bad_request(str(error), "input") from error


def _listed(served: Served, judged: Judged, data: Sequence[dict[str, Any]]) -> Response:
    usage = {"prompt_tokens": judged.tokens, "total_tokens": judged.tokens}
    return JSONResponse({"object": "list", "model": served.name, "data": data, "usage": usage})


def _written(vector: Sequence[float], encoding: str) -> Sequence[float] | str:
    if encoding == "float":
        return vector
    return base64.b64encode(np.array(vector, dtype="<f4").tobytes()).decode()
