"""A model is in use while a request has it: until its answer is sent, to the last piece of a stream, or is cut off."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hpo.serving.guard import refused
from hpo.serving.refusal import Refusal

_BORROWER = "hpo.borrower"
_EVENT_STREAM = b"text/event-stream"


class Borrower:
    """A request on its way through the routes."""

    def __init__(self, deadline: asyncio.Timeout, stack: ExitStack) -> None:
        self._deadline = deadline
        self.stack = stack
        """What it returns when its answer has been sent."""
        self.refusal: Refusal | None = None
        """What it is ended with, where that was before its answer was sent."""

    def end(self, refusal: Refusal) -> None:
        """Cancel it; its client gets the refusal."""
        self.refusal = refusal
        self._deadline.reschedule(asyncio.get_running_loop().time())


class Loans:
    """The requests that have a model now. Used in the event loop alone."""

    def __init__(self) -> None:
        self._borrowers: set[Borrower] = set()
        self._returned = asyncio.Event()

    def lend(self, borrower: Borrower) -> None:
        """Let a request have the model until its answer has been sent."""
        self._borrowers.add(borrower)
        borrower.stack.callback(self._give_back, borrower)

    def _give_back(self, borrower: Borrower) -> None:
        self._borrowers.remove(borrower)
        self._returned.set()

    async def all_returned(self) -> None:
        """Wait until no request has the model."""
        while self._borrowers:
            self._returned.clear()
            await self._returned.wait()

    async def end_after(self, seconds: float, refusal: Refusal) -> int:
        """Wait until no request has the model, and end those that take longer; returns how many these were."""
        try:
            async with asyncio.timeout(seconds):
                await self.all_returned()
            return 0
        except TimeoutError:
            late = list(self._borrowers)
        for borrower in late:
            borrower.end(refusal)
        await self.all_returned()
        return len(late)


class Lending:
    """An ASGI app around the server's: what a request borrowed is returned when its answer has been sent.

    A request that is ended before gets the reason.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer, borrower = _Answer(send), None
        try:
            async with asyncio.timeout(None) as deadline:
                with ExitStack() as stack:
                    scope[_BORROWER] = borrower = Borrower(deadline, stack)
                    await self._app(scope, receive, answer.send)
        except TimeoutError:
            if borrower is None or borrower.refusal is None:  # another one's
                raise
            await answer.end(borrower.refusal, scope, receive)
        except asyncio.CancelledError:  # by uvicorn, which has waited for it; to raise it would log a traceback
            found = "the server is shutting down; try again later"
            await answer.end(Refusal(503, found, code="shutting_down"), scope, receive)


class _Answer:
    """What has been sent of an answer."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_begun = self._is_stream = self._is_over = False

    async def send(self, message: Message) -> None:
        """Send on, and note how far it is."""
        await self._send(message)
        if message["type"] == "http.response.start":
            kinds = [value for name, value in message.get("headers", ()) if name.lower() == b"content-type"]
            self._is_begun, self._is_stream = True, any(kind.startswith(_EVENT_STREAM) for kind in kinds)
        elif message["type"] == "http.response.body":
            self._is_over = not message.get("more_body", False)

    async def end(self, refusal: Refusal, scope: Scope, receive: Receive) -> None:
        """Send a refusal: instead of an answer, or as the last event of a stream.

        Half of any other answer stays half: then the server ends the connection.
        """
        if not self._is_begun:
            await refused(refusal)(scope, receive, self._send)
        elif self._is_stream and not self._is_over:
            await self._send({"type": "http.response.body", "body": refusal.last_events})


def borrow(scope: Scope, loans: Loans) -> None:
    """Let a request have a model until its answer has been sent."""
    loans.lend(scope[_BORROWER])
