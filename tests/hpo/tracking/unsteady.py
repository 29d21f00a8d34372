"""A proxy in front of a server that does to requests what networks and servers do."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_END_TO_END = ("content-type", "authorization")


class Unsteady(ThreadingHTTPServer):
    """Passes requests on, unless `mood` says what happens to a request, given how many there were."""

    daemon_threads = True

    def __init__(self, behind: str | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind
        self.seen: list[str] = []
        self.mood: Any = lambda count: "fine"
        self.closing = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        server.seen.append(f"{self.command} {self.path}")
        mood = server.mood(len(server.seen))
        if mood == "hangs":
            server.closing.wait(30)
        elif mood == "lost":  # before it was carried out
            self.close_connection = True
        elif mood == "page":
            self._answer(200, b"<html>a login page</html>", "text/html")
        elif isinstance(mood, int):
            self._answer(mood, b"no", "text/plain")
        else:
            status, answer, kind = self._passed_on(server.behind, body)
            if mood == "unheard":  # carried out, and nobody knows
                self.close_connection = True
            else:
                self._answer(status, answer, kind)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815  # as http.server calls them

    def _passed_on(self, behind: str, body: bytes) -> tuple[int, bytes, str]:
        connection = http.client.HTTPConnection(behind, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() in _END_TO_END}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content, answer.headers.get("content-type", "application/json")

    def _answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


@contextmanager
def unsteady(behind: str | None = None) -> Iterator[Unsteady]:
    """A proxy that runs in threads of this process."""
    server = Unsteady(behind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
