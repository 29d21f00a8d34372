"""The sweep of one night: the file's, under the night's name and in its window, with earlier champions tried first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpo.config.sweep_config import SweepConfig
from hpo.errors import ConfigError
from hpo.nights.agenda import has_result
from hpo.nights.steps import Facts, Tonight
from hpo.nights.zone import session_end
from hpo.paths import Home
from hpo.results.champion import choose_champion
from hpo.results.summary import SweepSummary
from hpo.study.revision import changes_of
from hpo.study.store import stored_state, study_names, view_study
from trainers.protocol.settings import Setting


def night_sweep(tonight: Tonight, config: SweepConfig) -> SweepConfig:
    """The sweep that this night runs; `config` is the file's, under the night's name and on tonight's frozen rows.

    What it releases waits as the challenger: whether it becomes champion is certified after the sweep, on rows that
    the sweep never gets. So all of its validation rows choose. The test stays sealed until a promotion is certified.
    """
    points = earlier_champions(tonight, config)
    return replace(
        config,
        strategy=replace(config.strategy, enqueue=(*config.strategy.enqueue, *points)),
        experiment=config.experiment or tonight.config.name,  # nights are compared with each other
        is_certified_later=True,
        ends_at=_window_end(tonight) if config.budget.until else None,
    )


def _window_end(tonight: Tonight) -> float:
    """In seconds since the epoch; it stays, however long data is read before the first trial."""
    frame, until = tonight.frame, tonight.config.budget.until
    return session_end(tonight.since, until, frame.nightly.cutoff_time, frame.zone).timestamp()


def earlier_champions(tonight: Tonight, config: SweepConfig) -> list[Mapping[str, Setting]]:
    """The champions' settings of the last nights, the newest first, as far as they lie in the space.

    They are trained again on tonight's rows, since a lead of one night may be luck; at most half of the trials are
    spent on them. No result is taken over.
    """
    with_sweep = [record for record in tonight.earlier if has_result(record)]
    names = [record.night.sweep for record in with_sweep[-tonight.frame.nightly.warm_start :]]
    if not tonight.frame.nightly.warm_start:
        return []
    known = set(study_names(tonight.home.studies_db))
    points: list[Mapping[str, Setting]] = []
    for name in reversed([name for name in names if name in known]):
        point = _champion_point(tonight.home, name, config)
        if point and point not in points:
            points.append(point)
    return points[: config.planned_trials() // 2]


def _champion_point(home: Home, sweep: str, config: SweepConfig) -> dict[str, Setting]:
    """The settings of a sweep's champion that lie in this space."""
    view, dimensions = view_study(home.studies_db, sweep), config.space.dimensions
    champion = choose_champion(view.records, view.objective, view.config["constraints"], view.state.finalists)
    params = champion.params if champion else {}
    return {name: value for name, value in params.items() if name in dimensions and dimensions[name].contains(value)}


def has_results(home: Home, sweep: str) -> bool:
    """Whether a trial of a sweep has a result. Raises `HpoError` where the sweep cannot be read."""
    if sweep not in study_names(home.studies_db):
        return False
    records = view_study(home.studies_db, sweep).records
    return any(record.result is not None and record.result.value is not None for record in records)


def is_leftover(home: Home, config: SweepConfig) -> bool:
    """Whether a night's sweep was begun on other rows, or is asked now what would not compare, and has no result yet:
    then it is in the way, and nothing of it is worth keeping. Raises `HpoError` where it cannot be read."""
    stored = stored_state(home.studies_db, config.name)
    if stored is None or has_results(home, config.name):
        return False
    if _rows_of(stored.config["data"]["train"]["source"]) != _rows_of(config.data.train.source):
        return True
    try:
        changes_of(config, stored.config)
    except ConfigError:
        return True
    return False


def _rows_of(source: str) -> str:
    """The hash of frozen rows, which their folder is named by; the home may have been moved."""
    return Path(source).parent.name


def sweep_facts(summary: SweepSummary) -> Facts:
    """What later steps and the report read of a night's sweep."""
    champion, baseline = summary.champion, summary.baseline
    released = summary.challenger or summary.release
    facts: dict[str, Any] = {
        "sweep": summary.sweep,
        "metric": summary.objective.metric,
        "direction": summary.objective.direction,
        "trials": len(summary.trials),
        "trial": champion.number if champion else None,
        "value": champion.value if champion else None,
        "baseline": baseline.value if baseline else None,
        "ended_by": summary.search_ended_by,
        "seconds": summary.spent.hours * 3600,
        "gpu_hours": summary.spent.gpu_hours,
        "cost": summary.spent.cost,
        "model": released.name if released else None,
        "version": released.version if released else None,
        "ruling": released.decision if released else None,
        "why": released.why if released else "",
        "refusal": summary.refusal,
        # A version that is registered passed every gate; what it shows against the champion is certified later.
        "regression": (summary.refusal or "") if released is None else "",
    }
    return facts


def said_of_sweep(facts: Facts) -> str:
    """The same in a sentence."""
    if facts["value"] is None:
        return f"{facts['trials']} trials, none of which can be champion"
    best = f"{facts['trials']} trials, the best has {facts['metric']} {facts['value']:.4f}"
    if facts["version"] is not None:
        return f"{best}; released as version {facts['version']} of {facts['model']!r}"
    return f"{best}; nothing was released" + (f": {facts['refusal']}" if facts["refusal"] else "")
