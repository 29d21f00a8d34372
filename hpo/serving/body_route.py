"""A route's JSON body, read and checked with pydantic alone: FastAPI's way for any kind of body takes longer."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from hpo.serving.refusal import Refusal


class BodyRoute(APIRoute):
    """A route whose function takes `(request, body)`; any other is FastAPI's own."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function that answers a request."""
        answer = self.endpoint
        if [*inspect.signature(answer).parameters] != ["request", "body"]:
            return super().get_route_handler()
        kind: type[BaseModel] = typing.get_type_hints(answer)["body"]

        async def handle(request: Request) -> Response:
            if not _is_json(request.headers.get("content-type", "")):
                expected = "expected a body of JSON, with Content-Type: application/json"
                raise Refusal(415, expected, code="content_type")
            response: Response = await answer(request, _checked(kind, await request.body()))
            return response

        return handle


def _is_json(content_type: str) -> bool:
    """A page from elsewhere can send other types without the browser's asking first."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _checked(kind: type[BaseModel], content: bytes) -> BaseModel:
    """The body. Raises `RequestValidationError` for one that is no JSON, or has wrong keys."""
    try:
        return kind.model_validate(json.loads(content))
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**found, "loc": ("body", *found["loc"])} for found in wrong]) from error
    except (ValueError, RecursionError) as error:
        raise RequestValidationError([{"type": "json_invalid", "loc": ("body",), "msg": "no JSON"}]) from error
