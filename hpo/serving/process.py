"""The serving process: loads the models, listens, and ends when its requests are answered; without torch and MLflow."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

from hpo.config.serve_config import ServeConfig
from hpo.errors import HpoError, UsageError
from hpo.quoting import listed
from hpo.serving.admin import Admin
from hpo.serving.app import make_app
from hpo.serving.connection import connection_with
from hpo.serving.follower import Follower
from hpo.serving.keys import Keys, read_keys
from hpo.serving.limits import Limits
from hpo.serving.loader import Loader
from hpo.serving.order import Order
from hpo.serving.resolver import Resolver
from hpo.serving.served import Shelf
from hpo.serving.watch import make_watch


class _Server(uvicorn.Server):
    """Uvicorn's server, which ends by itself after a signal: the first one drains, the second one does not wait."""

    def __init__(self, config: uvicorn.Config, limits: Limits) -> None:
        super().__init__(config)
        self._seconds = limits.drain_seconds + limits.close_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain and close. A filter's function may hang in its thread, and Python would wait for it without end."""
        last = threading.Timer(self._seconds, _end_now)
        last.daemon = True
        last.start()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _end_now() -> None:
    print("error: something hangs: the process ends without it", file=sys.stderr, flush=True)
    os._exit(1)


def serve(order: Order, limits: Limits) -> None:
    """Listen, load and serve until SIGTERM or Ctrl-C. Raises `HpoError`."""
    keys = read_keys(order.key_file, order.host)
    listener = _listener(order.host, order.port, limits)
    _log_to_stderr()
    shelf = Shelf(expected=order.models)
    loader = Loader(shelf, limits)
    resolver = None if order.home is None else Resolver(order.home, stays=order.follow_every is not None)
    admin = None if order.home is None or resolver is None else Admin(loader, resolver, order.home)
    app = make_app(shelf, keys, limits, admin=admin, watch=make_watch(order.config))
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=limits.drain_seconds, lifespan="on", ws="none",
        http=connection_with(limits), timeout_keep_alive=limits.idle_seconds,
    )  # fmt: skip

    async def load_and_follow() -> None:
        await loader.load_first(order.places)
        _announce(shelf, listener, keys, order.config)
        if resolver is not None and order.follow_every is not None:
            await Follower(loader, resolver, order.follow_every).run()

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:  # uvloop, where there is one
        runner.run(_run(_Server(config, limits), listener, load_and_follow, resolver))


async def _run(
    server: _Server, listener: socket.socket, work: Callable[[], Coroutine[Any, Any, None]], resolver: Resolver | None
) -> None:
    """Serve, with other work going on, until either ends; an error of the work ends the server."""

    async def work_or_end() -> None:
        try:
            await work()
        except Exception:
            server.should_exit = True
            raise

    working = asyncio.create_task(work_or_end())
    await server.serve(sockets=[listener])
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working
    if resolver is not None:
        await resolver.close()


def _log_to_stderr() -> None:
    """What happens while it serves, a line each with the time."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log = logging.getLogger("hpo.serving")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


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


def _announce(shelf: Shelf, listener: socket.socket, keys: Keys, config: ServeConfig) -> None:
    host, port = listener.getsockname()[:2]
    for served in shelf:
        print(f"serving {served}")
    if config.filters:
        print(f"filtered by {listed(one.name for one in config.filters)}")
    if config.log is not None:
        print(f"predictions go to {config.log.dir}, {'with' if config.log.texts else 'without'} texts")
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
