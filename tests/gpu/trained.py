"""Trials in a real host, side by side, and what they report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hpo.executors.local import LocalExecutor
from tests.gpu.trials import Prepared
from trainers.protocol.events import TERMINAL, Evaluation, Failed, Step, TrialEvent, TrialResult
from trainers.protocol.requests import Train
from trainers.protocol.trial_spec import TrialSpec


@dataclass
class Ran:
    """What came of one trial: its reports with the seconds since its submission."""

    reports: list[tuple[float, Any]] = field(default_factory=list)
    failed: Failed | None = None

    @property
    def first_step_s(self) -> float:
        return next(seconds for seconds, report in self.reports if isinstance(report, Step))

    @property
    def result(self) -> TrialResult | None:
        return next((report for _, report in self.reports if isinstance(report, TrialResult)), None)


def trained(
    executor: LocalExecutor, given: Prepared, specs: Sequence[TrialSpec], kill_at: int | None = None
) -> list[Ran]:
    """Train them side by side to their ends, or kill each at its evaluation of that number."""
    began = time.monotonic()
    under_way = {executor.submit(Train((spec,), given.found)): Ran() for spec in specs}
    ended: set[int] = set()
    while len(ended) < len(under_way):
        message = executor.wait()
        assert message is not None
        request, event = message
        ran = under_way[request]
        if isinstance(event, TrialEvent):
            ran.reports.append((time.monotonic() - began, event.report))
            if isinstance(event.report, Evaluation):
                if event.report.index == kill_at:
                    executor.kill(request)
                else:
                    executor.reply(request, event.trial, "go")
            ran.failed = event.report if isinstance(event.report, Failed) else ran.failed
        elif isinstance(event, TERMINAL):
            ran.failed = event if isinstance(event, Failed) else ran.failed
            ended.add(request)
    return list(under_way.values())
