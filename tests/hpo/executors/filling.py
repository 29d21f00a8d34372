"""The fake trainer, with weights to write, on a disk that it fills where a test says so.

Imported by the trial host as a module of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator
from pathlib import Path

from trainers.host import fake
from trainers.protocol.events import Evaluation, Event, TrialEvent
from trainers.protocol.requests import Request, Train, Verdict

PLAN = "HPO_TEST_FILL"
"""JSON: {"disk": folder, "at": [trial, evaluation], "leave_kb": so much is left free, "weights_kb": of each trial}."""


def work(request: Request) -> Generator[Event, Verdict | None, None]:
    answer = fake.work(request)
    if not isinstance(request, Train):
        yield from answer
        return
    plan = json.loads(os.environ[PLAN])
    verdict = None
    with contextlib.suppress(StopIteration):
        while True:
            event = answer.send(verdict)
            if isinstance(event, TrialEvent) and isinstance(event.report, Evaluation):
                Path(request.spec.dir, "weights").write_bytes(b"\1" * (plan["weights_kb"] << 10))
                if [event.trial, event.report.index] == plan["at"]:
                    fill(Path(plan["disk"]), plan["leave_kb"])
            verdict = yield event


def fill(disk: Path, leave_kb: int) -> None:
    """Once: write until nothing more can be written, then leave some room."""
    ballast = disk / "ballast"
    if ballast.exists():
        return
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
        file.truncate(max(0, file.tell() - (leave_kb << 10)))
