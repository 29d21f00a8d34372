"""The serving process: loads the models, listens, and ends when its requests are answered; without torch and MLflow."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from hpo.errors import HpoError, UsageError
from hpo.serving.app import make_app
from hpo.serving.connection import connection_with
from hpo.serving.keys import Keys, read_keys
from hpo.serving.limits import Limits
from hpo.serving.order import Order
from hpo.serving.served import Served, Shelf, load_served


class _Server(uvicorn.Server):
    """Uvicorn's server, which ends by itself after a signal: the first one drains, the second one does not wait."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(order: Order, limits: Limits) -> None:
    """Load, listen and serve until SIGTERM or Ctrl-C. Raises `HpoError`."""
    keys = read_keys(order.key_file, order.host)
    listener = _listener(order.host, order.port, limits)
    models = [load_served(name, folder, limits) for name, folder in order.models.items()]
    _announce(models, listener, keys)
    config = uvicorn.Config(
        make_app(Shelf(models), keys, limits), log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=limits.drain_seconds, lifespan="on", ws="none",
        http=connection_with(limits), timeout_keep_alive=limits.idle_seconds,
    )  # fmt: skip
    _Server(config).run(sockets=[listener])


def _listener(host: str, port: int, limits: Limits) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
        # Connections inherit it. asyncio does not set it on sockets made so, and then each answer waits 40 ms for the
        # client's delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":  # elsewhere a client that stops reading keeps its connection
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * limits.read_seconds))
        return listener
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port") from None


def _announce(models: list[Served], listener: socket.socket, keys: Keys) -> None:
    host, port = listener.getsockname()[:2]
    for served in models:
        card = served.release.card
        print(f"serving {served.name} ({card.task}, {card.variant})")
    where = f"[{host}]" if ":" in host else host
    print(f"on http://{where}:{port}{' with a key' if keys else ''} (Ctrl-C ends it)", flush=True)


def main(text: str) -> int:
    """Serve what an order says, given as JSON; return the exit code."""
    try:
        serve(Order.from_json(text), Limits())
    except HpoError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
