"""The sweep of one night: the file's, under the night's name and in its window, with earlier champions tried first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpo.config.sweep_config import SweepConfig
from hpo.nights.agenda import has_result
from hpo.nights.steps import Facts, Tonight
from hpo.nights.zone import session_end
from hpo.paths import Home
from hpo.results.champion import choose_champion
from hpo.results.progress_text import setting_text
from hpo.results.summary import SweepSummary
from hpo.study.revision import incomparable, trained_with
from hpo.study.store import stored_state, study_names, view_study
from trainers.protocol.settings import Setting


@dataclass(frozen=True)
class EarlierChampions:
    """What is tried again tonight."""

    points: list[Mapping[str, Setting]] = field(default_factory=list)
    not_tried: list[str] = field(default_factory=list)
    """Why others are not, in sentences."""


def night_sweep(tonight: Tonight, config: SweepConfig, again: EarlierChampions) -> SweepConfig:
    """The sweep that this night runs; `config` is the file's, under the night's name and on tonight's frozen rows.

    What it releases waits as the challenger: whether it becomes champion is certified after the sweep, on rows that
    the sweep never gets. So all of its validation rows choose. The test stays sealed until a promotion is certified.
    """
    return replace(
        config,
        strategy=replace(config.strategy, enqueue=(*config.strategy.enqueue, *again.points)),
        experiment=config.experiment or tonight.config.name,  # nights are compared with each other
        is_certified_later=True,
        ends_at=_window_end(tonight) if config.budget.until else None,
    )


def _window_end(tonight: Tonight) -> float:
    """In seconds since the epoch; it stays, however long data is read before the first trial."""
    frame, until = tonight.frame, tonight.config.budget.until
    return session_end(tonight.since, until, frame.nightly.cutoff_time, frame.zone).timestamp()


def earlier_champions(tonight: Tonight, config: SweepConfig) -> EarlierChampions:
    """The champions of the last nights, the newest first, with every setting that tonight's sweep searches, also where
    their night's file had fixed it.

    They are trained again on tonight's rows, since a lead of one night may be luck; at most half of the trials are
    spent on them. No result is taken over. What the files of both nights fix follows tonight's.
    """
    again, most = EarlierChampions(), config.planned_trials() // 2
    if not tonight.frame.nightly.warm_start or not config.space.dimensions:
        return again
    with_sweep = [record for record in tonight.earlier if has_result(record)]
    names = [record.night.sweep for record in with_sweep[-tonight.frame.nightly.warm_start :]]
    known = set(study_names(tonight.home.studies_db))
    for name in reversed([name for name in names if name in known]):
        if len(again.points) >= most:
            break
        found = _champion_point(tonight.home, name, config)
        if isinstance(found, str):
            again.not_tried.append(f"the champion of {name} is not tried again: {found}")
        elif found is not None and found not in again.points:
            again.points.append(found)
    return again


def _champion_point(home: Home, sweep: str, config: SweepConfig) -> Mapping[str, Setting] | str | None:
    """The point of a sweep's champion in this space, or why it has none; None where the sweep has no champion."""
    view, defaults, dimensions = view_study(home.studies_db, sweep), config.defaults(), config.space.dimensions
    champion = choose_champion(view.records, view.objective, view.config["constraints"], view.state.finalists)
    record = view.record(champion.number) if champion else None
    if record is None:
        return None
    trained = {**defaults, **trained_with(record, config.space, view.config)}
    point = config.space.point(lambda name, _: trained[name])
    problems = [
        f"{name} was {setting_text(value)}, outside of tonight's search space"
        for name, value in point.items()
        if not dimensions[name].contains(value)
    ]
    problems += [
        f"{name} was {setting_text(value)}, and tonight's file fixes {setting_text(defaults.get(name))}"
        for name, value in record.params.items()
        if name not in point and defaults.get(name) != value
    ]
    return "; ".join(problems) or point


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
    rows = _rows_of(stored.config["data"]["train"]["source"])
    return rows != _rows_of(config.data.train.source) or bool(incomparable(config, stored.config))


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
