"""The process between a sweep and Ray: takes requests as lines, and has nodes answer them.

sweep ══ JSON lines ══► bridge ── actor calls ──► actor on a node ══ JSON lines ══► trial host ──fork──► child

python -m hpo.executors.ray.bridge SETTINGS      SETTINGS: `ClusterSettings` as JSON
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from hpo.executors.ray.cluster import CannotConnect, Cluster
from hpo.executors.ray.executor import ClusterSettings
from trainers.protocol.codec import from_json

if TYPE_CHECKING:
    from hpo.executors.ray.pool import NodePool

LOST = "the Ray cluster was lost in the middle of the sweep: {}; then the same command continues the sweep"
LOOKS_EVERY_S = 1.0
CONNECTS_WITHIN_S = 60.0


class _Requests:
    """Lines of the sweep, read in a thread from the beginning: when they end, this process does."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pool: NodePool | None = None
        self._early: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self.ended = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with os.fdopen(self._fd, "rb") as lines:
            for line in lines:
                message = json.loads(line)
                with self._lock:
                    if self._pool is None:
                        self._early.append(message)
                        continue
                self._pool.take(message)
        with self._lock:
            if self._pool is None:
                os._exit(0)  # it may stand in a connection that nobody waits for any more
        self.ended.set()

    def go_to(self, pool: NodePool) -> None:
        """Have lines go to the pool, first those that came before it was there."""
        with self._lock:
            for message in self._early:
                pool.take(message)
            self._pool = pool


def serve(pool: NodePool, requests: _Requests) -> None:
    """Until the sweep ends, or no node can train any more. Raises `CannotConnect`."""
    requests.go_to(pool)
    try:
        while True:
            pool.look()
            if requests.ended.wait(LOOKS_EVERY_S):
                return
    finally:
        pool.end()


def main() -> None:
    """Serve the sweep at the other end of standard input and output; what libraries print goes to standard error."""
    requests_fd, events_fd = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests = _Requests(requests_fd)
    settings = from_json(ClusterSettings, json.loads(sys.argv[1]))
    watchdog = threading.Timer(CONNECTS_WITHIN_S, _give_up, args=(events_fd, settings))
    watchdog.daemon = True
    watchdog.start()
    try:
        cluster = _joined(settings)
        from hpo.executors.ray.pool import NodePool  # late: Ray reads its variables when it is imported

        watchdog.cancel()
        serve(NodePool(settings, cluster, events_fd), requests)
    except CannotConnect as error:
        _say_error(events_fd, str(error))
    sys.stderr.flush()
    os._exit(0)


def _joined(settings: ClusterSettings) -> Cluster:
    """The cluster. Raises `CannotConnect`."""
    try:
        return Cluster(settings.address)
    except CannotConnect as error:
        raise CannotConnect(_in_context(settings, str(error))) from error


def _give_up(events_fd: int, settings: ClusterSettings) -> None:
    where = settings.address or "a local one"
    _say_error(events_fd, _in_context(settings, f"Ray ({where}) does not answer within {CONNECTS_WITHIN_S:.0f} s; look "
               "at `ray status` there, and give its address as HOST:PORT (run.address, --address)"))  # fmt: skip
    os._exit(1)


def _in_context(settings: ClusterSettings, problem: str) -> str:
    """What keeps this process from the cluster, for a sweep that begins or that had one already."""
    return LOST.format(problem) if settings.is_again else problem


def _say_error(events_fd: int, text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(events_fd, json.dumps({"error": text}).encode() + b"\n")


if __name__ == "__main__":
    main()
