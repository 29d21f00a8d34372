"""The fake trainer, taking its time, with weights to write; at some evaluations it kills what the plan says.

Imported by the trial host as a module of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Generator
from pathlib import Path

from trainers.host import fake
from trainers.protocol.events import Evaluation, Event, TrialEvent
from trainers.protocol.requests import Request, Train, Verdict

PLAN = "HPO_TEST_KILLS"
"""JSON: {"marks": folder, "kills": {"TRIAL": "host", "actor" or "raylet"}, "pause_s": of each evaluation}."""


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
                time.sleep(plan["pause_s"])
                Path(request.spec.dir, "checkpoints", "1", "best").mkdir(parents=True, exist_ok=True)
                Path(request.spec.dir, "checkpoints", "1", "best", "weights").write_bytes(b"\1" * 100_000)
                with Path(plan["marks"], f"trial-{event.trial}").open("a") as marks:
                    marks.write(f"{event.report.index}\n")
                if event.report.index == 1:
                    kill(plan["kills"].get(str(event.trial)), Path(plan["marks"], f"killed-{event.trial}"))
            verdict = yield event


def kill(what: str | None, mark: Path) -> None:
    """Once: child, host, actor and raylet are parents of each other, in this order."""
    if what is None or mark.exists():
        return
    mark.touch()
    pid = os.getppid()
    for _ in range(["host", "actor", "raylet"].index(what)):
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(pid, signal.SIGKILL)
    time.sleep(60)
