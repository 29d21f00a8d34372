"""A port for a server of a test."""

from __future__ import annotations

import secrets
import socket


def free_port() -> int:
    """One of 127.0.0.1 that nobody listens on now.

    The kernel gives these numbers to nobody who asks for any port, so that it is still free when the server starts.
    """
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
