"""HTTP clients that cost next to nothing: requests made before, and one process that waits for all connections at once.

A server and its clients share the cores here. What the clients spend, the server cannot.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any


def request_of(path: str, body: Any) -> bytes:
    """A request as it goes over the wire."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


@dataclass
class Answers:
    """What came back."""

    seconds: float = 0.0
    waits: list[float] = field(default_factory=list)
    """Seconds from each request to its answer."""
    bodies: list[bytes] = field(default_factory=list)
    failed: int = 0
    """Answers whose status was not 200."""


class _Connection:
    """One client's connection, which is kept."""

    def __init__(self, place: tuple[str, int], stack: ExitStack) -> None:
        self.socket = stack.enter_context(socket.create_connection(place))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = b""
        self._began = 0.0

    def ask(self, request: bytes, began: float) -> None:
        self._began = began
        self.socket.sendall(request)

    def take(self, answers: Answers) -> bool:
        """Read what has come; whether the answer is whole. Raises `ConnectionError` where the server has hung up."""
        got = self.socket.recv(1 << 20)
        if not got:
            raise ConnectionError("the server closed a connection")
        self._read += got
        head, end, body = self._read.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return False
        answers.waits.append(time.perf_counter() - self._began)
        answers.bodies.append(body)
        answers.failed += not head.startswith(b"HTTP/1.1 200")
        self._read = b""
        return True


def ask(place: tuple[str, int], requests: Sequence[bytes], clients: int, due: Sequence[float] | None = None) -> Answers:
    """Send requests over `clients` connections and wait for all answers.

    Each client asks again as soon as it has its answer; with `due`, in seconds from now, a request waits for its time,
    and for a client that is free, which counts as its waiting too.
    """
    answers = Answers()
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        free = deque(_Connection(place, stack) for _ in range(clients))  # in turn: the server closes idle connections
        for connection in free:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        start, sent = time.perf_counter(), 0
        while len(answers.waits) < len(requests):
            now = time.perf_counter()
            while free and sent < len(requests) and (due is None or start + due[sent] <= now):
                free.popleft().ask(requests[sent], now if due is None else start + due[sent])
                sent += 1
            pause = None
            if due is not None and free and sent < len(requests):
                pause = max(0.0, start + due[sent] - time.perf_counter())
            for key, _ in selector.select(pause):
                if key.data.take(answers):
                    free.append(key.data)
        answers.seconds = time.perf_counter() - start
    return answers
