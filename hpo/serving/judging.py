"""`/v1/classify`: inputs checked, judged in batches with those of other requests, and answered in order."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from hpo.serving.bodies import ClassifyBody
from hpo.serving.judge import Judge
from hpo.serving.limits import Limits
from hpo.serving.refusal import bad_request
from hpo.serving.served import Served


async def answer_classify(served: Served, body: ClassifyBody, limits: Limits) -> Response:
    """Judge inputs. Raises `Refusal`."""
    if not isinstance(served.engine, Judge):
        path = "/v1/chat/completions" if served.release.card.chat_template else "/v1/completions"
        raise bad_request(f"{served.name} writes texts; use {path}", "model", "wrong_task")
    if not 0 < len(body.inputs) <= limits.inputs:
        raise bad_request(f"input: expected 1 to {limits.inputs} inputs, got {len(body.inputs)}", "input")
    try:
        judged = await served.engine.answer(body.inputs)
    except ValueError as error:
        raise bad_request(str(error), "input") from error
    data = [{"index": index, **answer} for index, answer in enumerate(judged.answers)]
    usage = {"prompt_tokens": judged.tokens, "total_tokens": judged.tokens}
    return JSONResponse({"object": "list", "model": served.name, "data": data, "usage": usage})
