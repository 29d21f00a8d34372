"""The routes of a server, the answers to wrong requests, and the end of work for a client that has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

from hpo.serving.admin import Admin, ModelBody
from hpo.serving.bodies import ChatBody, ClassifyBody, CompletionBody, EmbeddingBody
from hpo.serving.body_route import BodyRoute
from hpo.serving.changes import Changes
from hpo.serving.described import (
    REFUSED,
    ChatAnswer,
    ClassifyAnswer,
    CompletionAnswer,
    EmbeddingAnswer,
    ModelDeleted,
    ModelEntry,
    ModelList,
    Status,
    answers,
)
from hpo.serving.guard import Guard, needs_admin, needs_metrics, refused
from hpo.serving.judging import answer_classify, answer_embeddings
from hpo.serving.keys import Keys
from hpo.serving.lending import Lending
from hpo.serving.limits import Limits
from hpo.serving.metrics import CONTENT_TYPE, exposition
from hpo.serving.page import PAGE, PAGE_HEADERS
from hpo.serving.refusal import Refusal, bad_request
from hpo.serving.served import Shelf
from hpo.serving.watch import Watch
from hpo.serving.writing import answer_chat, answer_completion

_MOST_PROBLEMS = 5
_GONE = 499
"""The status of an answer that nobody reads (nginx's)."""


def make_app(
    shelf: Shelf, keys: Keys, limits: Limits, *, admin: Admin | None = None, watch: Watch | None = None
) -> ASGIApp:
    """The server's app; its end closes the models, the filters and the log. Without an `admin` the models stay."""
    watch = watch or Watch()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        closing = ThreadPoolExecutor(1, "closing")  # the threads of requests may all hang
        for close in (watch.close, shelf.close):
            await asyncio.get_running_loop().run_in_executor(closing, close)
        closing.shutdown(wait=False)

    app = FastAPI(title="hpo serve", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.router.route_class = BodyRoute
    _add_model_routes(app, shelf, limits, watch)
    _add_operator_routes(app, shelf, Changes() if admin is None else admin.loader.changes, watch)
    if admin is not None:
        _add_admin_routes(app, admin)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Refusal, _on_refusal)
    app.add_exception_handler(Exception, _on_error)
    return Lending(Guard(app, keys, limits))


def _add_model_routes(app: FastAPI, shelf: Shelf, limits: Limits, watch: Watch) -> None:
    @app.post("/v1/classify", response_model=None, responses=answers(ClassifyAnswer))
    async def classify(request: Request, body: ClassifyBody) -> Response:
        """Labels, scores, a value, entities or tags for each input."""
        served = shelf.lend(body.model, request.scope)
        return await _unless_gone(request, answer_classify(served, body, limits, watch))

    @app.post("/v1/embeddings", response_model=None, responses=answers(EmbeddingAnswer))
    async def embed(request: Request, body: EmbeddingBody) -> Response:
        """A vector for each text, as OpenAI's API does."""
        return await _unless_gone(
            request, answer_embeddings(shelf.lend(body.model, request.scope), body, limits, watch)
        )

    @app.post("/v1/chat/completions", response_model=None, responses=answers(ChatAnswer, streams=True))
    async def chat(request: Request, body: ChatBody) -> Response:
        """Answer a chat, as OpenAI's API does."""
        served = shelf.lend(body.model, request.scope)
        return await _unless_gone(request, answer_chat(served, body, limits, watch))

    @app.post("/v1/completions", response_model=None, responses=answers(CompletionAnswer, streams=True))
    async def complete(request: Request, body: CompletionBody) -> Response:
        """Continue a text or answer a filled template, as OpenAI's API does."""
        return await _unless_gone(
            request, answer_completion(shelf.lend(body.model, request.scope), body, limits, watch)
        )

    @app.get("/v1/models", response_model=None, responses=answers(ModelList))
    async def models() -> dict[str, Any]:
        """All models of this server."""
        return {"object": "list", "data": [model.entry() for model in shelf.models().values()]}

    @app.get("/v1/models/{model:path}", response_model=None, responses=answers(ModelEntry))  # NAME/VERSION is one too
    async def model(model: str) -> dict[str, Any]:
        """One model of this server."""
        return shelf.find(model).entry()


def _add_operator_routes(app: FastAPI, shelf: Shelf, changes: Changes, watch: Watch) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE, headers=PAGE_HEADERS)

    @app.get("/health", response_model=None, responses=answers(Status))
    async def health() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/ready", response_model=None, responses=answers(Status))
    async def ready() -> dict[str, str]:
        """Whether every model is loaded and answers."""
        if shelf.is_loading:
            raise Refusal(503, "a model is being loaded", code="not_ready")
        if not shelf.is_ready:
            raise Refusal(503, "a model has stopped", code="not_ready")
        return {"status": "ready"}

    @app.get(
        "/metrics", response_model=None, dependencies=[Depends(needs_metrics)], response_class=PlainTextResponse,
        responses=REFUSED,
    )  # fmt: skip
    async def metrics() -> Response:
        """Counts and times, for Prometheus."""
        text = exposition({served.name: served.engine.meter for served in shelf}) + changes.exposition(shelf)
        text += "".join(f"{line}\n" for line in watch.lines())
        return Response(text, headers={"content-type": CONTENT_TYPE})


def _add_admin_routes(app: FastAPI, admin: Admin) -> None:
    @app.post(
        "/v1/models/load", response_model=None, dependencies=[Depends(needs_admin)], responses=answers(ModelEntry)
    )
    async def load(body: ModelBody) -> dict[str, Any]:
        """Load a model, or the version that its name means now; answered when the version before is closed."""
        return await admin.load(body)

    @app.post(
        "/v1/models/unload", response_model=None, dependencies=[Depends(needs_admin)], responses=answers(ModelDeleted)
    )
    async def unload(body: ModelBody) -> dict[str, Any]:
        """Unload a model; answered when its last request is answered. An adapter's requests end after the answer."""
        return await admin.unload(body.model)


async def _unless_gone(request: Request, answering: Coroutine[Any, Any, Response]) -> Response:
    """The answer; where the client goes away before, the work for it is cancelled."""
    work = asyncio.create_task(answering)
    gone = asyncio.create_task(_disconnect(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else Response(status_code=_GONE)
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _on_invalid(request: Request, error: Exception) -> Response:
    """A body that is no JSON, or has wrong keys. What may be of several types is one problem."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  # as it was registered
    problems: dict[str, list[str]] = {}
    for found in error.errors():
        if found["type"] == "json_invalid":
            return refused(bad_request("the body is not valid JSON", code="invalid_json"))
        key = str(found["loc"][1]) if len(found["loc"]) > 1 else ""
        problems.setdefault(key, []).append(str(found["msg"]).replace("Input should be ", "expected "))
    lines = [f"{key or 'body'}: {' or '.join(dict.fromkeys(said))}" for key, said in problems.items()]
    return refused(bad_request("; ".join(lines[:_MOST_PROBLEMS])[:1000], next(iter(problems)) or None))


async def _on_http(request: Request, error: Exception) -> Response:
    """A path or a method that does not exist, or a body that cannot be read."""
    assert isinstance(error, HTTPException)  # noqa: S101  # as it was registered
    response = refused(Refusal(error.status_code, str(error.detail)))
    response.headers.update(error.headers or {})
    return response


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101  # as it was registered
    return refused(error)


async def _on_error(request: Request, error: Exception) -> Response:
    """A fault of the server; its traceback goes to the error output alone."""
    return refused(Refusal(500, f"the server failed: {type(error).__name__}", code="server_failed"))
