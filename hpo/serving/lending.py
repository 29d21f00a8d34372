"""A model is in use while a request has it: until its answer is sent, to the last piece of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

_STACK = "hpo.borrowed"


class Loans:
    """How many requests have a model now. Used in the event loop alone."""

    def __init__(self) -> None:
        self._count = 0
        self._returned = asyncio.Event()

    @contextmanager
    def one(self) -> Iterator[None]:
        """A request has the model while inside."""
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            self._returned.set()

    async def all_returned(self) -> None:
        """Wait until no request has the model."""
        while self._count:
            self._returned.clear()
            await self._returned.wait()


class Lending:
    """An ASGI app around the routes: what a request borrowed is returned when its answer has been sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with ExitStack() as stack:
            scope[_STACK] = stack
            await self._app(scope, receive, send)


def borrow(scope: Scope, loans: Loans) -> None:
    """Let a request have a model until its answer has been sent."""
    stack: ExitStack = scope[_STACK]
    stack.enter_context(loans.one())
