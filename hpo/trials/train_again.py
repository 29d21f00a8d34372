"""Trains a recorded run again: with the micro-batches that it had, and to where it was stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from hpo.errors import RequestFailed
from hpo.executors.base import Executor
from hpo.progress_view import ProgressView
from hpo.trials.recorded_run import RecordedRun
from trainers.protocol.events import PAUSED, TERMINAL, Evaluation, Failed, PreparedData, Step, TrialEvent, TrialResult
from trainers.protocol.requests import Train, Verdict
from trainers.protocol.trial_spec import TrialSpec

_STOPPED: Mapping[str, Verdict] = {"pruner": "stop", "sweep_budget": "stop", "trial_minutes": "finish"}
"""What a run was stopped by -> the verdict that stopped it; others ended by themselves."""


def train_again(
    executor: Executor, run: RecordedRun, spec: TrialSpec, prepared: PreparedData, view: ProgressView
) -> tuple[TrialResult, list[str]]:
    """The result, and notes on what had to be otherwise. Raises `RequestFailed` where the training fails."""
    view.begin(1, 0, spec.metric, 1)
    view.trial_started(spec.number, run.params)
    notes: list[str] = []
    stages, ends = run.stages(), {evaluation.step for evaluation in run.result.evaluations}
    if any(end is not None and end not in ends for _, end in stages):
        notes.append("memory ran out between two evaluations of the run; here all steps have the last micro-batch")
        stages = stages[-1:]
    for halvings, end in stages:
        part = dataclasses.replace(spec, micro_batch_halvings=halvings)
        found = _train_to(executor, run, part, prepared, view, end)
        if isinstance(found, TrialResult):
            return found, notes
    raise RequestFailed(f"{run.name} ended at a pause without a result")


def _train_to(
    executor: Executor, run: RecordedRun, spec: TrialSpec, prepared: PreparedData, view: ProgressView, end: int | None
) -> TrialResult | None:
    """Train to the evaluation at step `end`, which leaves a checkpoint (then None), or to the end."""
    request = executor.submit(Train((spec,), prepared))
    found: TrialResult | None = None
    while True:
        message = executor.wait(timeout_s=1.0)
        if message is None:
            view.tick()
            continue
        event = message[1]
        if isinstance(event, TrialEvent):
            report = event.report
            if isinstance(report, Step):
                view.step(spec.number, report.examples / spec.max_examples, report.loss, report.seconds)
            elif isinstance(report, Evaluation):
                view.evaluated(spec.number, report.fraction, report.metrics[spec.metric])
                executor.reply(request, spec.number, _verdict(run, report, end))
            elif isinstance(report, TrialResult):
                found = report
            elif isinstance(report, Failed) and report != PAUSED:
                raise RequestFailed(f"{report.cause}: {report.message}", report.cause)
        elif isinstance(event, Failed):
            raise RequestFailed(f"{event.cause}: {event.message}", event.cause)
        elif isinstance(event, TERMINAL):
            return found


def _verdict(run: RecordedRun, evaluation: Evaluation, end: int | None) -> Verdict:
    """What the run was told at this evaluation: it ends where the run was stopped."""
    if evaluation.step == end:
        return "pause"
    if evaluation.index < len(run.result.evaluations) - 1:
        return "go"
    return _STOPPED.get(run.result.stopped_by, "go")
