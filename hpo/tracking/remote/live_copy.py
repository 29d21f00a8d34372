"""Runs on a team's tracking server while a sweep writes them at home: a process of its own copies them there.

So a server that does not answer, or answers slowly, costs the sweep nothing: what waits is in the home.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hpo.errors import UsageError
from hpo.module_command import module_command
from hpo.paths import Home
from hpo.tracking.remote.server import TrackingServer

LAST_S = 5.0
"""So long the process may send the rest when the sweep has ended."""
_ENDS_S = 2.0
"""Then it has so long to end."""


@contextmanager
def copied_to_server(home: Home, sweep: str, say: Callable[[str], None]) -> Iterator[None]:
    """While inside, a sweep's runs are also copied to the server of `MLFLOW_TRACKING_URI`, where that names one.

    Leaving waits a few seconds for the rest. `say` gets what a person should know, from another thread.
    """
    server = _server(say)
    if server is None:
        yield
        return
    process = _started(home, sweep, server, say)
    if process is None:
        yield
        return
    say(f"runs are copied to {server.url} too")
    relay = threading.Thread(target=_relay, args=(process, say), daemon=True)
    relay.start()
    try:
        yield
    finally:
        is_done = _ends(process)
        relay.join(1.0)
        if not is_done:
            say(f"{server.url} does not have all of it yet; hpo sync {sweep} copies the rest")
        elif process.returncode:
            log = home.sweep(sweep).remote_log
            say(f"note: the process that copies runs to {server.url} ended with exit code {process.returncode} "
                f"(see {log}); hpo sync {sweep} copies the rest")  # fmt: skip


def _server(say: Callable[[str], None]) -> TrackingServer | None:
    try:
        return TrackingServer.named(os.environ)
    except UsageError as error:
        say(f"note: no run is copied to a server: {error}")
        return None


def _started(
    home: Home, sweep: str, server: TrackingServer, say: Callable[[str], None]
) -> subprocess.Popen[str] | None:  # fmt: skip
    """The process; None where it cannot start, for want of memory, say: the sweep goes on without it."""
    log: Path = home.sweep(sweep).remote_log
    try:
        with log.open("ab") as output:
            return subprocess.Popen(
                module_command("hpo.tracking.remote.process", str(home.dir), sweep, str(LAST_S)),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True,
                env={**os.environ, **server.for_mlflow(os.environ)},
                start_new_session=True,  # Ctrl-C is for the sweep, with which the process ends
            )  # fmt: skip
    except OSError as error:
        say(f"note: no run is copied to {server.url} now: {error}; hpo sync {sweep} copies them later")
        return None


def _relay(process: subprocess.Popen[str], say: Callable[[str], None]) -> None:
    """Pass on what the process says, until it ends."""
    assert process.stdout is not None  # noqa: S101  # PIPE was asked for
    with process.stdout as lines:
        for line in lines:
            say(line.rstrip("\n"))


def _ends(process: subprocess.Popen[str]) -> bool:
    """Let the process send the rest, for as long as it may; whether it has ended by itself."""
    assert process.stdin is not None  # noqa: S101  # PIPE was asked for
    try:
        process.stdin.close()  # this tells it
        process.wait(LAST_S + _ENDS_S)
    except subprocess.TimeoutExpired:
        return False
    finally:
        process.kill()
        process.wait()
    return True
