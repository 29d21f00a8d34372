"""Earlier sweeps as a head start: equal trials are taken over with their results, the best points are tried first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from hpo.config.space import Point
from hpo.config.strategy import complete_point
from hpo.config.sweep_config import SweepConfig
from hpo.errors import ConfigError, Problem
from hpo.paths import Home
from hpo.results.champion import ranked
from hpo.results.records import TrialRecord
from hpo.search.controller import TrialLog
from hpo.study.revision import refit
from hpo.study.store import study_names, view_study
from hpo.study.study import Study
from trainers.protocol.messages import PreparedData

BEST_OF_EACH = 3


def check_warm_start(config: SweepConfig, home: Home) -> None:
    """Raises `ConfigError` for a sweep that does not exist."""
    known = study_names(home.studies_db)
    problems = [
        Problem(
            f"{config.file}: search_strategy.warm_start",
            f"no sweep {name!r}",
            f"there are: {', '.join(known)}" if known else "there are none yet",
        )
        for name in config.strategy.warm_start
        if name not in known or name == config.name
    ]
    if problems:
        raise ConfigError(problems)


def warm_points(config: SweepConfig, home: Home) -> list[Point]:
    """The best points of the earlier sweeps, as far as they lie in this space; defaults where they say nothing."""
    points = []
    for name in config.strategy.warm_start:
        view = view_study(home.studies_db, name)
        for record in ranked(view.records, view.objective, {})[:BEST_OF_EACH]:
            dimensions = config.space.dimensions
            given = {n: v for n, v in record.params.items() if n in dimensions and dimensions[n].contains(v)}
            if given:
                points.append(complete_point(given, config.space, config.defaults()))
    return points


def take_over(
    config: SweepConfig, home: Home, inspection: PreparedData, study: Study, tracker: TrialLog,
    identity_of: Callable[[Point], str],
) -> int:  # fmt: skip
    """Copy the trials of earlier sweeps that this one would train just the same; returns how many."""
    known = {record.identity for record in study.records()}
    baseline = identity_of(config.baseline())
    count = 0
    for name in config.strategy.warm_start:
        earlier = view_study(home.studies_db, name)
        for record in earlier.records:
            if record.state not in ("complete", "pruned") or record.identity in known:
                continue
            fitting = refit(record, config, earlier.config, identity_of)
            if fitting is None:
                continue
            known.add(record.identity)
            is_baseline = record.identity == baseline
            if is_baseline:
                study.set_attr("baseline", study.next_number)
            _copy(config, home, inspection, study, tracker, fitting, _origin(name, record), is_baseline)
            count += 1
    return count


def _origin(name: str, record: TrialRecord) -> str:
    """Where a trial was trained: its adapter lies there."""
    trained = record.reused_from or str(record.number)
    return trained if "/" in trained else f"{name}/{trained}"


def _copy(
    config: SweepConfig, home: Home, inspection: PreparedData, study: Study, tracker: TrialLog, record: TrialRecord,
    origin: str, is_baseline: bool,
) -> None:  # fmt: skip
    """MLflow first, then the study: a kill in between is done again, and the run is found by its tags."""
    assert record.result is not None  # noqa: S101  # it is over
    number = study.next_number
    mine = dataclasses.replace(
        record, number=number, reused_from=origin, run_id=None, revision=study.revision, attempts=[], resumed_from=None
    )
    paths = home.sweep(config.name).trial(number)
    spec = config.trial_spec(number, record.params, home, inspection, paths, threads=1)
    run_id = tracker.start_trial(spec, mine, is_baseline=is_baseline)
    for evaluation in record.result.evaluations:
        tracker.evaluation(number, evaluation)
    tracker.finish_trial(number, record.result, paths)
    study.copy(dataclasses.replace(mine, run_id=run_id))
