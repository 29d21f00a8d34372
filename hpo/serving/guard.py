"""What every request passes first: its key, with the role that a route needs, and a body of bounded size and time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hpo.serving.keys import Keys, Role
from hpo.serving.limits import Limits
from hpo.serving.refusal import Refusal

_OPEN_PATH = "/health"
_ROLE = "hpo.role"


def refused(refusal: Refusal, *, is_read: bool = True) -> Response:
    """A refusal as an answer. Its JSON is ASCII: what is quoted of a request may have no UTF-8.

    `is_read`: whether the body has come. Nobody shall read one that is still on its way: the connection ends.
    """
    headers = {**refusal.headers, **({} if is_read else {"connection": "close"})}
    return Response(json.dumps(refusal.body), refusal.status, headers, "application/json")


async def needs_metrics(request: Request) -> None:
    """Of a route that keys of role `infer` may not use. Raises `Refusal`."""
    _check_role(request, Role.PLAIN, "this key may ask the models only; expected one without a role, or admin:KEY")


async def needs_admin(request: Request) -> None:
    """Of a route that changes the server. Raises `Refusal`.

    A page of another site could send such a request to this machine from a browser. A browser names the page's origin.
    """
    _check_role(request, Role.ADMIN, "this key may not load or unload models; expected one given as admin:KEY")
    if "origin" in request.headers:
        raise Refusal(403, "a browser may not load or unload models", code="from_browser")


def _check_role(request: Request, least: Role, found: str) -> None:
    if request.scope[_ROLE] < least:
        raise Refusal(403, found, code="role_too_small")


class Guard:
    """An ASGI app around the server's."""

    def __init__(self, app: ASGIApp, keys: Keys, limits: Limits) -> None:
        self._app = app
        self._keys = keys
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            headers = dict(scope["headers"])
            role = self._keys.role_of(headers.get(b"authorization", b""))
            if role is None and scope["path"] != _OPEN_PATH:
                raise Refusal(401, "the API key is missing or wrong", code="invalid_api_key")
            most = 0 if scope["path"] == _OPEN_PATH else self._limits.body_bytes
            body = await self._body(headers, receive, most)
        except Refusal as refusal:
            await refused(refusal, is_read=False)(scope, receive, send)
            return
        scope[_ROLE] = role
        if body is not None:
            await self._app(scope, _replayed(body, receive), send)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive, most: int) -> bytes | None:
        """The whole body, of at most `most` bytes; None where the client has gone. Raises `Refusal`."""
        too_large = Refusal(413, f"the body has more than {most:,} bytes", code="body_too_large")
        stated = headers.get(b"content-length", b"0")
        if not stated.isdigit() or int(stated[:20]) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise too_large
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            found = f"the body took longer than {self._limits.body_seconds:g} seconds"
            raise Refusal(408, found, code="body_too_slow") from None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body in one message, and then what comes after it."""
    first: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return first.pop() if first else await receive()

    return replay
