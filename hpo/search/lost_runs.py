"""Runs that were deleted from MLflow for good, written again from the study and the trials' folders."""

from __future__ import annotations

import dataclasses

from hpo.results.outcome import FinalistsOutcome
from hpo.results.records import TrialRecord
from hpo.search.contest import repeats_of
from hpo.trials.context import SweepContext
from hpo.trials.trial_files import read_result
from trainers.protocol.events import TrialResult
from trainers.protocol.files import TrialPaths


def write_lost_runs(sweep: SweepContext) -> None:
    """MLflow is a view of the study: a trial or repeat whose run is gone has a new one, and the study knows it.

    Evaluations, best values and files come back; the loss of the steps between evaluations is kept nowhere else.
    """
    records = [r for r in sweep.study.records() if r.is_over and r.run_id]
    finalists = sweep.study.state.finalists
    repeats = [repeat for contestant in finalists.contestants for repeat in contestant.repeats] if finalists else []
    if not records:
        return
    gone = sweep.tracker.gone([*(r.run_id or "" for r in records), *(repeat.run_id for repeat in repeats)])
    lost = [record for record in records if record.run_id in gone]
    for record in lost:
        _write_trial(sweep, record)
    lost_repeats = [repeat for repeat in repeats if repeat.run_id in gone and not repeat.of_search]
    if finalists and any(repeat.run_id in gone for repeat in repeats):
        _write_repeats(sweep, finalists, gone)
    if count := len(lost) + len(lost_repeats):
        sweep.view.say(f"MLflow: {count} run{'s' * (count != 1)} had been deleted and {'are' if count != 1 else 'is'} "
                       "written again, without the loss of the steps between evaluations")  # fmt: skip


def _write_trial(sweep: SweepContext, record: TrialRecord) -> None:
    paths = sweep.paths.trial(record.number)
    spec = sweep.as_it_runs(sweep.specs.spec(record.number, record.params, paths), paths)
    is_baseline = record.number == sweep.study.state.baseline
    run_id = sweep.tracker.start_trial(spec, dataclasses.replace(record, run_id=None), is_baseline=is_baseline)
    if record.result is not None:
        _write_result(sweep, record.number, record.result, paths, with_curve=not record.is_duplicate)
    sweep.study.replace_run(record.number, run_id)


def _write_repeats(sweep: SweepContext, finalists: FinalistsOutcome, gone: set[str]) -> None:
    """The study's `finalists` with the new runs of those that are gone."""
    contestants = []
    for contestant in finalists.contestants:
        record = sweep.study.record(contestant.trial)
        written = []
        planned = repeats_of(sweep, [record], len(contestant.repeats))
        for repeat, again in zip(contestant.repeats, planned, strict=True):
            paths = sweep.paths.repeat(again.trial, again.repeat)
            if repeat.of_search:
                written.append(dataclasses.replace(repeat, run_id=record.run_id or ""))  # its new one, if it was lost
            elif repeat.run_id in gone and paths.result.exists():
                spec = sweep.as_it_runs(again.spec, paths)
                run_id = sweep.tracker.start_repeat(spec, again.trial, again.repeat)
                _write_result(sweep, again.spec.number, read_result(paths), paths, with_curve=True)
                written.append(dataclasses.replace(repeat, run_id=run_id))
            else:
                written.append(repeat)
        contestants.append(dataclasses.replace(contestant, repeats=written))
    sweep.study.update_state(finalists=dataclasses.replace(finalists, contestants=contestants))


def _write_result(
    sweep: SweepContext, number: int, result: TrialResult, paths: TrialPaths, *, with_curve: bool
) -> None:
    for evaluation in result.evaluations if with_curve else []:
        sweep.tracker.evaluation(number, evaluation)
    sweep.tracker.finish_trial(number, result, paths)
