"""All sweeps of one database: which there are, their revisions, and a study opened or read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna

from hpo.config.objective import Objective
from hpo.config.sweep_config import SweepConfig
from hpo.errors import HpoError, UsageError
from hpo.remedies import first_line, way_on
from hpo.results.records import StudySnapshot
from hpo.sqlite import usable, wait_while_locked
from hpo.study.stored_trial import read_trials
from hpo.study.study import STUDY_ERRORS, Study


def open_study(config: SweepConfig, database: Path | None, name: str | None = None) -> Study:
    """Open or create a study; `database` None keeps it in memory (tests, benchmarks)."""
    return Study(config, storage(database), name)


def newest_study_name(database: Path, name: str) -> str | None:
    """The Optuna study of a sweep's newest revision; None when there is no such sweep."""
    revisions = _revisions(database).get(name)
    return revisions[-1] if revisions else None


def stored_attrs(database: Path, name: str) -> dict[str, Any]:
    """What a sweep has written down about itself; empty when there is no such sweep."""
    newest = newest_study_name(database, name)
    if newest is None:
        return {}
    with _readable(database):
        return dict(optuna.load_study(study_name=newest, storage=storage(database, to_write=False)).user_attrs)


def view_study(database: Path, name: str) -> StudySnapshot:
    """Read a study. Raises `UsageError` naming the sweeps there are."""
    newest = newest_study_name(database, name)
    if newest is None:
        names = study_names(database)
        known = f"there are: {', '.join(names)}" if names else "there are none yet"
        raise UsageError(f"no sweep {name!r}; {known}")
    with _readable(database):
        study = optuna.load_study(study_name=newest, storage=storage(database, to_write=False))
        attrs = dict(study.user_attrs)
        records = read_trials(study.get_trials(deepcopy=False), attrs)
    objectives = tuple(Objective(o["metric"], o["direction"]) for o in attrs["config"]["objective"])
    return StudySnapshot(name, attrs["config"], objectives, records, attrs)


def study_names(database: Path) -> list[str]:
    return sorted(_revisions(database))


def delete_unopened(database: Path, study_name: str) -> None:
    """Remove a revision that a kill left half copied."""
    opened = storage(database)
    for study in opened.get_all_studies():
        if study.study_name == study_name and "config" not in study.user_attrs:
            optuna.delete_study(study_name=study_name, storage=opened)


def _revisions(database: Path) -> dict[str, list[str]]:
    """Sweep -> its Optuna studies, the newest last; only those that were opened to the end."""
    if not usable(database, to_write=False):
        return {}
    found: dict[str, list[tuple[int, str]]] = {}
    with _readable(database):
        studies = storage(database, to_write=False).get_all_studies()
    for study in studies:
        name, _, revision = study.study_name.partition("@")
        if "config" in study.user_attrs:
            found.setdefault(name, []).append((int(revision or 1), study.study_name))
    return {name: [full for _, full in sorted(revisions)] for name, revisions in found.items()}


def storage(database: Path | None, *, to_write: bool = True) -> optuna.storages.BaseStorage:
    """Raises `HpoError` where something that is no database of studies lies there."""
    if database is None:
        return optuna.storages.InMemoryStorage()
    usable(database, to_write=to_write)
    wait_while_locked(database)
    with _readable(database):
        return optuna.storages.RDBStorage(f"sqlite:///{database}", engine_kwargs={"connect_args": {"timeout": 10}})


@contextmanager
def _readable(database: Path) -> Iterator[None]:
    """What is wrong with the database, as an error for people."""
    try:
        yield
    except (*STUDY_ERRORS, RuntimeError) as error:  # the latter for tables of another program
        raise HpoError(f"{database} cannot be used: {first_line(error)}; {way_on(error)}") from error
