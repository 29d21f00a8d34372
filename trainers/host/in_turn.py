"""Trials of one request, advanced in turn: each one's reports go out with its number, and verdicts come in to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Mapping

from trainers.protocol.events import TRIAL_ENDS, Event, Failed, Trained, TrialEvent, TrialReport
from trainers.protocol.requests import Verdict

Trial = Generator[TrialReport, Verdict | None, None]


def in_turn(trials: Mapping[int, Trial]) -> Generator[Event, Verdict | None, None]:
    """Advance each trial by one report after the other until all have ended; keys are the trials' numbers.

    The verdict that is sent in is for the trial whose report was just yielded. An exception of one trial is the end of
    all of them: they share a process, and perhaps a forward pass.
    """
    going: deque[tuple[int, Trial, Verdict | None]] = deque((*item, None) for item in trials.items())
    try:
        while going:
            number, trial, verdict = going[0]
            report = _next_of(trial, verdict)
            verdict = yield TrialEvent(number, report)
            going.popleft()
            if isinstance(report, TRIAL_ENDS):
                trial.close()
            else:
                going.append((number, trial, verdict))
        yield Trained()
    finally:
        for _, trial, _ in going:
            trial.close()


def _next_of(trial: Trial, verdict: Verdict | None) -> TrialReport:
    try:
        return trial.send(verdict)
    except StopIteration:
        return Failed("crash", "the trainer ended without a result")
