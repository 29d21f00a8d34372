"""Serving processes: started, asked for their counts, ended."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import httpx2

from hpo.serving.order import Order


@dataclass
class Running:
    """A serving process."""

    process: subprocess.Popen[str]
    url: str

    @property
    def place(self) -> tuple[str, int]:
        """Where it listens, for a socket."""
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    @property
    def connections(self) -> int:
        """How many sockets the process has open, the one that listens included."""
        return sum(map(_is_socket, Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def gauge(self, name: str, model: str) -> float:
        """A number of `/metrics`."""
        text = httpx2.get(f"{self.url}/metrics").text
        (line,) = [line for line in text.splitlines() if line.startswith(f'{name}{{model_name="{model}"}}')]
        return float(line.split()[-1])

    def known(self, model: str) -> float:
        """How many answers it was ever asked for: those that wait, are being written, or were given."""
        names = ("num_requests_running", "num_requests_waiting", "e2e_request_latency_seconds_count")
        starts = tuple(f'vllm:{name}{{model_name="{model}"}}' for name in names)
        lines = httpx2.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(starts))

    def is_idle(self, model: str) -> bool:
        """Whether nothing waits for a model and nothing is with it."""
        return not sum(self.gauge(f"vllm:num_requests_{state}", model) for state in ("running", "waiting"))


def _is_socket(file: Path) -> bool:
    try:
        return str(file.readlink()).startswith("socket:")
    except FileNotFoundError:  # it was closed since it was listed
        return False


PLACE = Path(__file__).parents[3]
_OTHER_LIMITS = """
import json, sys
from hpo.serving.limits import Limits
from hpo.serving.order import Order
from hpo.serving.process import serve
serve(Order.from_json(sys.argv[1]), Limits(**json.loads(sys.argv[2])))
"""


@contextmanager
def started(order: Order, errors: TextIO | None = None, **limits: float) -> Iterator[Running]:
    """A serving process that listens; `errors` gets its log, `limits` are those that differ.

    Raises `AssertionError` where it ends before.
    """
    start = ["-c", _OTHER_LIMITS] if limits else ["-m", "hpo.serving"]
    command = [sys.executable, *start, order.to_json(), *([json.dumps(limits)] if limits else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=PLACE) as process:
        assert process.stdout is not None
        try:
            line = next((line for line in process.stdout if line.startswith("on http")), None)
            assert line is not None, f"it ended with {process.wait()}"
            yield Running(process, line.split()[1])
        finally:
            process.kill()


def soon(condition: Callable[[], object], seconds: float = 60) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())
