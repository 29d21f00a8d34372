"""A real browser without a window, driven over the Chrome DevTools protocol."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from websockets.sync.client import ClientConnection, connect

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
_WAIT_S = 30


def installed() -> str | None:
    """The path of a browser; None where there is none."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Page:
    """One page, and all that it has said and asked for since it was opened."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self.errors: list[str] = []
        """What went to the console as an error, and exceptions that nothing caught."""
        self.requested: list[str] = []
        """The URLs of its requests."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable")

    def open(self, url: str, width: int, *, is_dark: bool = False) -> None:
        """Show a page, so many pixels wide, to a person who likes it light or dark."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self._send("Emulation.setEmulatedMedia", media="", features=[scheme])
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        self._send("Emulation.setDeviceMetricsOverride", **size)
        self._send("Page.navigate", url=url)

    def on_paper(self) -> None:
        """Show the open page as it is printed."""
        self._send("Emulation.setEmulatedMedia", media="print")

    def of(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self._send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str, within_s: float = _WAIT_S) -> None:
        """Wait until an expression is true. Raises `AssertionError` where it takes longer."""
        end = time.monotonic() + within_s
        while not self.of(expression):
            assert time.monotonic() < end, f"not in time: {expression}"
            time.sleep(0.05)

    def _send(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._connection.recv(_WAIT_S))
            if message.get("id") == number:
                assert "result" in message, message
                return dict(message["result"])
            self._note(message.get("method"), message.get("params", {}))

    def _note(self, method: str | None, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif (
            method == "Runtime.exceptionThrown"
            or (method == "Log.entryAdded" and params["entry"]["level"] == "error")
            or (method == "Runtime.consoleAPICalled" and params["type"] == "error")
        ):
            self.errors.append(json.dumps(params))


@contextmanager
def opened(browser: str, profile: Path) -> Iterator[Page]:
    """An empty page of a browser of its own."""
    flags = [*_FLAGS, f"--user-data-dir={profile}", "--remote-debugging-port=0"]
    command = [browser, *flags, "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if line.startswith("DevTools listening on "))
            host = line.split("/")[2]
            (target,) = [t for t in httpx2.get(f"http://{host}/json/list").json() if t["type"] == "page"]
            with connect(target["webSocketDebuggerUrl"], max_size=None) as connection:
                yield Page(connection)
        finally:
            _end(process.pid)


def _end(group: int) -> None:
    """Kill a browser's processes, and wait until none is left to write into its profile."""
    end = time.monotonic() + _WAIT_S
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
        while any(_runs_in(group)) and time.monotonic() < end:
            time.sleep(0.01)


def _runs_in(group: int) -> Iterator[Path]:
    """Processes of a group that are not dead yet; a zombie writes nothing."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(of_group) == group and state != "Z":
                yield stat
