"""All sweeps of one database: which there are, their revisions, and a study opened or read.

Who only reads does so without Optuna.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hpo.databases.studies import StudiesDatabase
from hpo.errors import HpoError, UsageError
from hpo.results.records import StudySnapshot, TrialRecord
from hpo.results.state import SweepState
from hpo.study.reader import Revisions, StudiesReader, read
from hpo.study.stored_state import LaterFormat, read_state
from trainers.protocol.codec import to_plain

if TYPE_CHECKING:
    import optuna

    from hpo.config.space import Point
    from hpo.config.sweep_config import SweepConfig
    from hpo.study.study import Study

# --- reading -------------------------------------------------------------------------------------------


def study_names(database: StudiesDatabase) -> list[str]:
    """Names of all sweeps in the database, sorted."""
    return sorted(_revisions(database))


def newest_study_name(database: StudiesDatabase, name: str) -> str | None:
    """The Optuna study of a sweep's newest revision; None when there is no such sweep."""
    revisions = _revisions(database).get(name)
    return revisions[-1][0] if revisions else None


def _revisions(database: StudiesDatabase) -> Revisions:
    """Sweep -> (name, id) of its Optuna studies, the newest last."""
    nothing: Revisions = {}
    return read(database, StudiesReader.revisions, nothing)


def stored_state(database: StudiesDatabase, name: str) -> SweepState | None:
    """What a sweep has written down about itself; None when there is no such sweep.

    Raises `HpoError` where that cannot be read.
    """

    def state(reader: StudiesReader) -> SweepState | None:
        revisions = reader.revisions().get(name)
        return read_state(reader.attributes(revisions[-1][1])) if revisions else None

    with _readable_records(name, database):
        return read(database, state, None)


def view_study(database: StudiesDatabase, name: str, *, is_brief: bool = False) -> StudySnapshot:
    """Read a study; in brief its records have no reports.

    Raises `UsageError` naming the sweeps there are, `HpoError` where this one cannot be read.
    """
    found = _snapshots(database, name, slice(-1, None), is_brief=is_brief)
    if not found:
        names = study_names(database)
        known = f"there are: {', '.join(names)}" if names else "there are none yet"
        raise UsageError(f"no sweep {name!r}; {known}")
    return found[0]


def revision_with(database: StudiesDatabase, name: str, trial: int) -> StudySnapshot | None:
    """The newest revision of a sweep that has a trial, which a later edit may have left out; None where none has it.

    Raises `HpoError` where a revision cannot be read.
    """
    found = [view for view in _snapshots(database, name, slice(None)) if view.record(trial) is not None]
    return found[-1] if found else None


def left_out_trials(database: StudiesDatabase, name: str) -> list[TrialRecord]:
    """Trials of a sweep's earlier revisions that its newest one does not have: an edit of the file left them out.

    Raises `HpoError` where a revision cannot be read.
    """
    *earlier, newest = _snapshots(database, name, slice(None))
    known = {record.number for record in newest.records}
    found = {record.number: record for view in earlier for record in view.records}  # as the last one had it
    return [record for number, record in found.items() if number not in known]


def _snapshots(
    database: StudiesDatabase, name: str, which: slice, *, is_brief: bool = False
) -> list[StudySnapshot]:  # fmt: skip
    """Those revisions of a sweep, the newest last. Raises `HpoError` where one cannot be read."""

    def snapshots(reader: StudiesReader) -> list[StudySnapshot]:
        revisions = reader.revisions().get(name, [])[which]
        return [reader.snapshot(name, study, is_brief=is_brief) for _, study in revisions]

    with _readable_records(name, database):
        return read(database, snapshots, [])


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
        f"sweep {name!r} cannot be read ({what}): another version of hpo, or an edit by hand, changed it; "
        f"bring back a copy of {database}"
    )


# --- writing -------------------------------------------------------------------------------------------


def open_study(
    config: SweepConfig, fingerprint_of: Callable[[Point], str], database: StudiesDatabase | None,
    name: str | None = None,
) -> Study:  # fmt: skip
    """Open or create a study; `database` None keeps it in memory (tests, benchmarks).

    Raises as `open_storage` does, and `HpoError` for one with records that cannot be read.
    """
    from hpo.study.storage import open_storage  # late: Optuna takes time that readers do not have
    from hpo.study.study import Study

    with _readable_records(config.name, database):
        return Study(config, fingerprint_of, open_storage(database, config.name), name)


def write_state(database: StudiesDatabase, name: str, **changes: Any) -> None:
    """Write fields of what a sweep has written down about itself, in the order given; the caller is its one writer.

    Raises as `open_storage` does.
    """
    newest, _ = _revisions(database)[name][-1]
    with _opened(database, name) as opened:
        study = opened.get_study_id_from_name(newest)
        for field, value in changes.items():
            opened.set_study_user_attr(study, field, to_plain(value))


def delete_unopened(database: StudiesDatabase, study_name: str) -> None:
    """Remove a revision that a kill left half copied."""
    with _opened(database, study_name.partition("@")[0]) as opened:
        names = [s.study_name for s in opened.get_all_studies() if "config" not in s.user_attrs]
        _delete(opened, [name for name in names if name == study_name])


def delete_sweep(database: StudiesDatabase, name: str) -> None:
    """Remove a sweep with all its revisions; the newest goes last, so that after a kill the sweep is still listed."""
    revisions = _revisions(database).get(name, [])
    if revisions:
        with _opened(database, name) as opened:
            _delete(opened, [full for full, _ in revisions])
    if database.file is None:
        from hpo.study.lease import lease_here  # late: it takes SQLAlchemy

        lease_here(database, name).forget()


def _delete(opened: optuna.storages.BaseStorage, studies: Sequence[str]) -> None:
    for study in studies:
        opened.delete_study(opened.get_study_id_from_name(study))


@contextmanager
def _opened(database: StudiesDatabase, sweep: str) -> Iterator[optuna.storages.BaseStorage]:
    """Optuna's storage for as long as it is needed. Raises as `open_storage` does."""
    from hpo.study.storage import close_storage, open_storage  # late, as above

    opened = open_storage(database, sweep)
    try:
        yield opened
    finally:
        close_storage(opened)
