"""A client's connection: the head of a request has a bound in bytes and in time, as the guard's bodies have."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hpo.serving.limits import Limits


class Connection(HttpToolsProtocol):
    """Uvicorn's, which would wait for the end of a head as long as its client likes, and keep all of it.

    It would keep what comes after a body in chunks too (trailers), as more headers; here they are dropped.
    """

    limits = Limits()
    _deadline: asyncio.TimerHandle | None = None
    """Set while the head of a request is expected."""
    _in_parts = 0
    """Bytes since the last head, piece of a body, or end of a request: of a head or a trailer that is not whole."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """A client is there: its first head is expected."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._have_head()
        self.pipeline.clear()  # nobody reads the answers to requests that were sent ahead
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; a head or a trailer that is too long ends the connection."""
        self._in_parts += len(data)
        super().data_received(data)
        if self._in_parts > self.limits.head_bytes:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """The next request begins."""
        super().on_message_begin()
        self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is whole; as a trailer it means nothing."""
        if self._deadline is not None:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Its head is whole."""
        self._have_head()
        self._in_parts = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of its body, which the guard counts."""
        self._in_parts = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """It has ended."""
        self._in_parts = 0
        super().on_message_complete()

    def _expect_head(self) -> None:
        self._have_head()
        self._deadline = self.loop.call_later(self.limits.head_seconds, self.transport.abort)

    def _have_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def connection_with(bounds: Limits) -> type[Connection]:
    """The connections of a server with these limits."""

    class Limited(Connection):
        limits = bounds

    return Limited
