"""An edited sweep: what changed, whether old results still compare, and the next revision with the trials that fit.

A trial fits when the edited file would train just the same: its point lies in the new space and the fingerprint of its
spec is the one it had. What was fixed and is searched now gets the value that it had.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hpo.config.space import Point, SearchSpace
from hpo.config.sweep_config import SweepConfig
from hpo.databases.studies import StudiesDatabase
from hpo.errors import ConfigError, Problem
from hpo.results.changes import as_written, differences
from hpo.results.records import StudySnapshot, TrialRecord, may_be_baseline
from hpo.results.state import Change, Revision
from hpo.study.store import delete_unopened, newest_study_name, open_study, view_study
from hpo.study.study import Study
from trainers.protocol.codec import RECORD_FORMAT
from trainers.protocol.settings import CHANGE_NO_RESULT, FIELDS, Setting

# Where these differ, old and new trials answer different questions. (Where data and model lie may change: what they
# hold is compared by hash.)
_INCOMPARABLE = ("task", "model.trust_remote_code", "data", "objective", "metrics", "generation", "seed")
_PLACES = ("model.source", "model.revision", "model.adapter", "data.train", "data.validation", "data.test")
_UNTOUCHED = (
    "promote", "trials", "report_to", "experiment", "nightly", *(f"training.{name}" for name in CHANGE_NO_RESULT),
    *_PLACES,
)  # fmt: skip
"""Changes that no trial depends on and that open no revision."""
_FREE = ("search_space", "constraints")


def changes_of(config: SweepConfig, stored: Mapping[str, Any]) -> list[Change]:
    """What the file says otherwise than the sweep's last revision.

    Raises `ConfigError` with every change that would mix results that cannot be compared.
    """
    if problems := incomparable(config, stored):
        raise ConfigError(problems)
    return _changes(config, stored)


def incomparable(config: SweepConfig, stored: Mapping[str, Any]) -> list[Problem]:
    """Every change since the sweep's last revision that would mix results that cannot be compared."""
    return [
        Problem(config.written.where(tuple(c.key.split("."))),
                f"was {as_written(c.old)} when sweep {config.name!r} began, now {as_written(c.new)}",
                "results would not compare: restore it, or give the sweep another name")
        for c in _changes(config, stored)
        if _is_under(c.key, _INCOMPARABLE) or (c.key.startswith("training.") and _is_incomparable(c.key))
    ]  # fmt: skip


def _changes(config: SweepConfig, stored: Mapping[str, Any]) -> list[Change]:
    now = _plain(config.resolved())
    before = completed(stored, now, config.written.lines)
    return [c for c in differences(before, now) if not _is_under(c.key, _UNTOUCHED)]


def completed(stored: Mapping[str, Any], now: Mapping[str, Any], lines: Iterable[tuple[str, ...]]) -> dict[str, Any]:
    """A stored config with keys that came after it was written, where the file does not name them.

    What a file leaves out has its default, with which a sweep goes on as before. Sections whose keys are names of the
    file's own (`_FREE`) have no defaults.
    """
    written = {".".join(path) for path in lines}

    def complete(stored: Mapping[str, Any], now: Mapping[str, Any], path: str) -> dict[str, Any]:
        known = dict(stored)
        for key, value in now.items():
            inner = f"{path}.{key}".lstrip(".")
            if inner in _FREE:
                continue
            if isinstance(value, dict) and isinstance(stored.get(key), dict):
                known[key] = complete(stored[key], value, inner)
            elif key not in stored and not any(_is_under(name, [inner]) for name in written):
                known[key] = value
        return known

    return complete(stored, now, "")


def _is_under(path: str, keys: Iterable[str]) -> bool:
    """Whether a key path is one of `keys` or lies below one."""
    return any(path == key or path.startswith(f"{key}.") for key in keys)


def _is_incomparable(path: str) -> bool:
    """Settings that no trial can search decide how trials are judged, and so does the length of the rows."""
    name = path.removeprefix("training.")
    return name not in FIELDS or not FIELDS[name].searchable or name in ("max_length", "max_epochs", "max_examples")


def open_revision(
    config: SweepConfig, fingerprint_of: Callable[[Point], str], database: StudiesDatabase
) -> tuple[Study, list[Change], int]:
    """The study to go on with: (study, what changed, trials left out because they no longer fit)."""
    name = newest_study_name(database, config.name)
    if name is None:
        study = open_study(config, fingerprint_of, database)
        _describe(study, config, [])
        return study, [], 0
    before = view_study(database, config.name)
    changes = changes_of(config, before.config)
    if not _reshapes(changes):
        study = open_study(config, fingerprint_of, database, name)
        if changes:
            study.update_state(revision=study.revision + 1, chosen_trial=None)  # what a person saw is another search
        if changes or before.config != _plain(config.resolved()):
            _describe(study, config, changes)
        return study, changes, 0
    return _reshaped(config, fingerprint_of, database, before, changes)


def _reshapes(changes: Iterable[Change]) -> bool:
    """Whether Optuna's study cannot take the change: its distributions are fixed, and so are its trials' settings and
    what was reported of them."""
    keys = ("search_space", "method", "training", "constraints", "pruner.metric", "code")
    return any(_is_under(change.key, keys) for change in changes)


def _reshaped(
    config: SweepConfig, fingerprint_of: Callable[[Point], str], database: StudiesDatabase, before: StudySnapshot,
    changes: list[Change],
) -> tuple[Study, list[Change], int]:  # fmt: skip
    last = max([r.number for r in before.records] + [before.state.last_number])
    state = before.state.next_revision(last)
    name = f"{config.name}@{state.revision}"
    delete_unopened(database, name)
    study = open_study(config, fingerprint_of, database, name)
    study.update_state(**state.written())
    baseline, left_out = fingerprint_of(config.baseline()), 0
    for record in sorted(before.records, key=lambda r: r.number):
        fitting = refit(record, config, before.config, fingerprint_of)
        if fitting is None or (fitting.fingerprint == baseline and not may_be_baseline(fitting)):
            left_out += 1
        else:
            if fitting.is_duplicate and study.twin(fitting.fingerprint) is None:
                # The trial that it is equal to was left out: from here on it stands for both, as one taken over does.
                fitting = dataclasses.replace(fitting, reused_from=f"{config.name}/{fitting.reused_from}")
            study.copy(fitting)
            if fitting.fingerprint == baseline and study.state.baseline is None:
                study.update_state(baseline=fitting.number)
    _describe(study, config, changes, left_out)
    return study, changes, left_out


def refit(
    record: TrialRecord, config: SweepConfig, before: Mapping[str, Any], fingerprint_of: Callable[[Point], str]
) -> TrialRecord | None:
    """An old trial as one of the edited sweep, or None where it is none."""
    known = trained_with(record, config.space, before)
    if any(name not in known for name in config.space.dimensions):
        return None
    params = config.space.point(lambda name, _: known[name])
    if not config.space.contains(params) or fingerprint_of(params) != record.fingerprint:
        return None
    # Optuna takes no value that is a rounding error off its step.
    params = {name: config.space.dimensions[name].nearest(value) for name, value in params.items()}
    metric = config.pruner.objective.metric
    curve = record.curve if metric == before["pruner"]["metric"] else _curve(record, metric)
    return dataclasses.replace(record, params=params, curve=curve)


def trained_with(record: TrialRecord, space: SearchSpace, before: Mapping[str, Any]) -> dict[str, Setting]:
    """Every setting of an old trial, and its method: what its sweep's config `before` had fixed, too."""
    known: dict[str, Any] = {**before["training"], "method": before["method"], **record.params}
    scale = space.dimensions.get("lora_alpha")
    if scale is not None and "lora_r" in known and known.get("lora_alpha") is None and not scale.contains(None):
        known["lora_alpha"] = float(known["alpha_ratio"]) * int(known["lora_r"])
    return known


def _curve(record: TrialRecord, metric: str) -> list[tuple[float, float]]:
    """What a trial would have reported of another metric; one that goes on will report it anew."""
    evaluations = record.result.evaluations if record.result and not record.reused_from else []
    return [(e.fraction, e.metrics[metric]) for e in evaluations]


def _describe(study: Study, config: SweepConfig, changes: list[Change], left_out: int = 0) -> None:
    """What the study is of; `config` goes last, since its presence says that the study is whole."""
    if changes:
        study.update_state(revisions=[*study.state.revisions, Revision(study.revision, changes, left_out)])
    study.update_state(format=RECORD_FORMAT, strategy=study.strategy, budget_setting=config.budget_setting())
    study.update_state(config=_plain(config.resolved()))


def _plain(value: Any) -> Any:
    """Tuples as the lists that they become in JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
