"""All sweeps of one database: which there are, their revisions, and a study opened or read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import optuna

from hpo.config.space import Point
from hpo.config.sweep_config import SweepConfig
from hpo.errors import HpoError, UsageError
from hpo.remedies import first_line, way_on
from hpo.results.records import StudySnapshot, TrialRecord
from hpo.results.state import SweepState
from hpo.sqlite import usable, wait_while_locked
from hpo.studies_database import StudiesDatabase
from hpo.study.lease import lease_here
from hpo.study.schema import check_schema, mismatch
from hpo.study.server_storage import ServerStorage
from hpo.study.stored_state import LaterFormat, read_state
from hpo.study.stored_trial import read_trials
from hpo.study.study import STUDY_ERRORS, Study, close_storage


def open_study(
    config: SweepConfig,
    fingerprint_of: Callable[[Point], str],
    database: StudiesDatabase | None,
    name: str | None = None,
) -> Study:
    """Open or create a study; `database` None keeps it in memory (tests, benchmarks).

    Raises `HpoError` for one whose records cannot be read.
    """
    with _readable_records(config.name, database):
        return Study(config, fingerprint_of, storage(database, sweep=config.name), name)


def newest_study_name(database: StudiesDatabase, name: str) -> str | None:
    """The Optuna study of a sweep's newest revision; None when there is no such sweep."""
    revisions = _revisions(database).get(name)
    return revisions[-1] if revisions else None


def stored_state(database: StudiesDatabase, name: str) -> SweepState | None:
    """What a sweep has written down about itself; None when there is no such sweep.

    Raises `HpoError` where that cannot be read.
    """
    newest = newest_study_name(database, name)
    if newest is None:
        return None
    with _readable(database), _readable_records(name, database), _opened(database, to_write=False) as opened:
        return read_state(optuna.load_study(study_name=newest, storage=opened).user_attrs)


def view_study(database: StudiesDatabase, name: str) -> StudySnapshot:
    """Read a study. Raises `UsageError` naming the sweeps there are, `HpoError` where this one cannot be read."""
    newest = newest_study_name(database, name)
    if newest is None:
        names = study_names(database)
        known = f"there are: {', '.join(names)}" if names else "there are none yet"
        raise UsageError(f"no sweep {name!r}; {known}")
    (view,) = _snapshots(database, name, [newest])
    return view


def left_out_trials(database: StudiesDatabase, name: str) -> list[TrialRecord]:
    """Trials of a sweep's earlier revisions that its newest one does not have: an edit of the file left them out.

    Raises `HpoError` where a revision cannot be read.
    """
    *earlier, newest = _snapshots(database, name, _revisions(database)[name])
    known = {record.number for record in newest.records}
    found = {record.number: record for view in earlier for record in view.records}  # as the last one had it
    return [record for number, record in found.items() if number not in known]


def _snapshots(database: StudiesDatabase, name: str, studies: Iterable[str]) -> list[StudySnapshot]:
    """Revisions of a sweep. Raises `HpoError` where one cannot be read."""
    found = []
    with _readable(database), _readable_records(name, database), _opened(database, to_write=False) as opened:
        for study_name in studies:
            study = optuna.load_study(study_name=study_name, storage=opened)
            state = read_state(study.user_attrs)
            records = read_trials(study.get_trials(deepcopy=False), state.run_ids)
            found.append(StudySnapshot(name, state, records))
    return found


def study_names(database: StudiesDatabase) -> list[str]:
    """Names of all sweeps in the database, sorted."""
    return sorted(_revisions(database))


def delete_unopened(database: StudiesDatabase, study_name: str) -> None:
    """Remove a revision that a kill left half copied."""
    with _opened(database, sweep=study_name.partition("@")[0]) as opened:
        for study in opened.get_all_studies():
            if study.study_name == study_name and "config" not in study.user_attrs:
                optuna.delete_study(study_name=study_name, storage=opened)


def delete_sweep(database: StudiesDatabase, name: str) -> None:
    """Remove a sweep with all its revisions; the newest goes last, so that after a kill the sweep is still listed."""
    with _opened(database, sweep=name) as opened:
        for study_name in _revisions(database).get(name, []):
            optuna.delete_study(study_name=study_name, storage=opened)


def _revisions(database: StudiesDatabase) -> dict[str, list[str]]:
    """Sweep -> its Optuna studies, the newest last; only those that were opened to the end."""
    if database.file and not usable(database.file, to_write=False):
        return {}
    found: dict[str, list[tuple[int, str]]] = {}
    with _readable(database), _opened(database, to_write=False) as opened:
        studies = opened.get_all_studies()
    for study in studies:
        name, _, revision = study.study_name.partition("@")
        if "config" in study.user_attrs:
            found.setdefault(name, []).append((int(revision or 1), study.study_name))
    return {name: [full for _, full in sorted(revisions)] for name, revisions in found.items()}


def storage(
    database: StudiesDatabase | None, *, to_write: bool = True, sweep: str | None = None
) -> optuna.storages.BaseStorage:  # fmt: skip
    """On a server, writes are those of the process that holds the lease of `sweep`.

    Raises `HpoError` where something that is no database of studies lies there, or the server does not answer.
    """
    if database is None:
        return optuna.storages.InMemoryStorage()
    if database.file is None:
        with _readable(database):
            return ServerStorage(database, lease_here(database, sweep) if sweep else None)
    if usable(database.file, to_write=to_write):
        check_schema(database)
    wait_while_locked(database.file)
    with _readable(database):
        return optuna.storages.RDBStorage(database.url, engine_kwargs={"connect_args": {"timeout": 10}})


@contextmanager
def _opened(
    database: StudiesDatabase, *, to_write: bool = True, sweep: str | None = None
) -> Iterator[optuna.storages.BaseStorage]:  # fmt: skip
    """The database for as long as it is needed. Raises as `storage` does."""
    opened = storage(database, to_write=to_write, sweep=sweep)
    try:
        yield opened
    finally:
        close_storage(opened)


@contextmanager
def _readable(database: StudiesDatabase) -> Iterator[None]:
    """What is wrong with the database, as an error for people."""
    try:
        yield
    except (*STUDY_ERRORS, RuntimeError) as error:  # the latter for tables of another program
        if other := mismatch(database, error):
            raise other from error
        raise HpoError(f"{database} cannot be used: {first_line(error)}; {way_on(error)}") from error


@contextmanager
def _readable_records(name: str, database: StudiesDatabase | None) -> Iterator[None]:
    try:
        yield
    except (LookupError, TypeError, ValueError) as error:
        raise unreadable(name, database, error) from error


def unreadable(name: str, database: StudiesDatabase | None, error: Exception) -> HpoError:
    """Records that do not fit, as an error that names their sweep."""
    if isinstance(error, LaterFormat):
        return HpoError(f"sweep {name!r} was written by a newer hpo ({error}): use that one")
    what = f"{type(error).__name__}: {error}"[:120]
    return HpoError(
        f"sweep {name!r} cannot be read ({what}): another version of hpo, or a hand, wrote in its study; "
        f"bring back a copy of {database}"
    )
