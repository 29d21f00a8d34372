"""Earlier sweeps as a head start: equal trials are taken over with their results, the best points are tried first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from hpo.config.space import Point
from hpo.config.strategy import complete_point
from hpo.config.sweep_config import SweepConfig
from hpo.errors import Problem
from hpo.paths import Home
from hpo.quoting import listed
from hpo.results.champion import ranked
from hpo.results.records import TrialRecord, is_lost, may_be_baseline
from hpo.study.revision import refit, trained_with
from hpo.study.store import study_names, view_study
from hpo.trials.context import SweepContext

BEST_OF_EACH = 3


def missing_sources(config: SweepConfig, home: Home) -> list[Problem]:
    """Each sweep of `warm_start` that does not exist, or is this one."""
    known = [name for name in study_names(home.studies_db) if name != config.name]
    return [
        Problem(
            config.written.where(("search_strategy", "warm_start")),
            f"no other sweep {name!r}",
            f"there are: {', '.join(known)}" if known else "there are none yet",
        )
        for name in config.strategy.warm_start
        if name not in known
    ]


def warm_points(config: SweepConfig, home: Home, say: Callable[[str], object] = lambda line: None) -> list[Point]:
    """The best points of the earlier sweeps, as far as they lie in this space; where they do not, defaults, and that is
    said."""
    points = []
    for name in config.strategy.warm_start:
        view, lost = view_study(home.studies_db, name), set[str]()
        for record in ranked(view.records, view.objective, {})[:BEST_OF_EACH]:
            known, dimensions = trained_with(record, config.space, view.config), config.space.dimensions
            given = {n: v for n, v in known.items() if n in dimensions and dimensions[n].contains(v)}
            if given:
                points.append(complete_point(given, config.space, config.defaults()))
                lost |= _lost(record, points[-1], config)
        if lost:
            say(f"warm start: the best points of {name} are tried without their {listed(sorted(lost))}: "
                "this file has other values")  # fmt: skip
    return points


def _lost(record: TrialRecord, point: Point, config: SweepConfig) -> set[str]:
    """What a trial was searched with, and its point here does not have."""
    dimensions, defaults = config.space.dimensions, config.defaults()
    return {
        name
        for name, value in record.params.items()
        if not (dimensions[name].contains(value) if name in point else defaults.get(name) == value)
    }


def take_over(sweep: SweepContext) -> int:
    """Copy the trials of earlier sweeps that this one would train just the same; returns how many."""
    config, study = sweep.config, sweep.study
    known = {record.fingerprint for record in study.records()}
    baseline = study.fingerprint_of(config.baseline())
    count = 0
    for name in config.strategy.warm_start:
        earlier = view_study(sweep.home.studies_db, name)
        for record in earlier.records:
            is_baseline = record.fingerprint == baseline
            if record.fingerprint in known or not _holds_here(record, is_baseline=is_baseline):
                continue
            if not _is_here(sweep.home, _origin(name, record)):
                continue
            fitting = refit(record, config, earlier.config, study.fingerprint_of)
            if fitting is None:
                continue
            known.add(record.fingerprint)
            if is_baseline:
                study.update_state(baseline=study.next_number)
            _copy(sweep, fitting, _origin(name, record), is_baseline=is_baseline)
            count += 1
    return count


def _holds_here(record: TrialRecord, *, is_baseline: bool) -> bool:
    """Whether the result of a trial is one of this sweep too: another sweep's budget may have stopped it, and a
    baseline is never pruned."""
    if record.state not in ("complete", "pruned") or record.result is None or is_lost(record.result):
        return False
    return may_be_baseline(record) or not is_baseline


def _origin(name: str, record: TrialRecord) -> str:
    """Where a trial was trained: its adapter lies there."""
    trained = record.reused_from or str(record.number)
    return trained if "/" in trained else f"{name}/{trained}"


def _is_here(home: Home, origin: str) -> bool:
    """Whether this home has the files of a trial, which its heir may release; studies of a server, also those that a
    backup has brought into a file, have trials of other homes too."""
    name, _, number = origin.rpartition("/")
    return home.sweep(name).trial(int(number)).dir.exists()


def _copy(sweep: SweepContext, record: TrialRecord, origin: str, *, is_baseline: bool) -> None:
    """MLflow first, then the study: a kill in between is done again, and the run is found by its tags."""
    assert record.result is not None  # noqa: S101  # it is over
    study, tracker, number = sweep.study, sweep.tracker, sweep.study.next_number
    mine = dataclasses.replace(
        record, number=number, reused_from=origin, run_id=None, revision=study.revision, attempts=[], resumed_from=None
    )
    paths = sweep.paths.trial(number)
    spec = sweep.specs.spec(number, record.params, paths)
    run_id = tracker.start_trial(spec, mine, is_baseline=is_baseline)
    for evaluation in record.result.evaluations:
        tracker.evaluation(number, evaluation)
    tracker.finish_trial(number, record.result, paths)
    study.copy(dataclasses.replace(mine, run_id=run_id))
