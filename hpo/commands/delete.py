"""`hpo delete`: a released version, all versions of a name, or a sweep, with their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpo.commands.aliases import split_name
from hpo.databases.sqlite import usable
from hpo.errors import UsageError
from hpo.garbage import discard
from hpo.lock import held_if_free, is_locked, remove_unheld
from hpo.paths import Home
from hpo.quoting import listed
from hpo.release.deletion import chosen_versions, delete_versions, in_use, with_alias
from hpo.release.versions import Version, versions_of
from hpo.results.needed import is_finished, starting_points
from hpo.results.records import StudySnapshot
from hpo.study.one_writer import one_writer
from hpo.study.store import delete_sweep, study_names, view_study
from hpo.tracking.mlflow_deletion import delete_experiment_of, delete_for_good, run_folder, runs_of
from trainers.protocol.counted import counted


def delete_release(home: Home, given: str, *, force: bool = False) -> str:
    """Delete all versions of `NAME`, or the one of `NAME/VERSION`; returns what to say.

    Raises `UsageError` for one that does not exist and, without `force`, for one that is champion, previous champion or
    served.
    """
    name, version = split_name(given)
    chosen = chosen_versions(home, name, version)
    if (used := in_use(home, chosen)) and not force:
        raise UsageError(f"{listed(used)}: nothing was deleted; --force deletes it too")
    delete_versions(home, chosen, name)
    if not chosen:
        return f"deleted {name!r}, which had no version"
    return f"deleted {counted(len(chosen), 'version')} of {name!r}"


def delete_whole_sweep(home: Home, name: str, *, force: bool = False) -> str:
    """Delete a sweep: its released versions, MLflow runs, study and files; returns what to say.

    After a kill, the same command continues. Raises `UsageError` for one that does not exist, runs or is being copied
    to a server and, without `force`, for one that a release or another sweep needs.
    """
    paths = home.sweep(name)
    names = study_names(home.studies_db)
    if name not in names and not paths.dir.exists():
        known = f"there are: {listed(names)}" if names else "there are none yet"
        raise UsageError(f"no sweep {name!r}; {known}")
    if is_locked(paths.lock):
        raise UsageError(f"sweep {name!r} is running: nothing was deleted; hpo stop {name} stops it")
    if name in names and not force:
        _refuse_absent_files(home, name)
    with one_writer(home, name, needs_files=False), held_if_free(paths.remote_lock) as is_still:
        if not is_still:
            raise UsageError(f"sweep {name!r}: its runs are being copied to a server: nothing was deleted; "
                             "wait for the end of hpo sync, or end it")  # fmt: skip
        has_store = usable(home.mlflow_db)
        versions = [v for v in versions_of(home) if v.sweep == name] if has_store else []
        run_ids = runs_of(home, name) if has_store else []
        if not force:
            _refuse_needed(home, name, versions, run_ids, names)
        delete_versions(home, versions)
        delete_for_good(home, run_ids)
        if has_store:
            delete_experiment_of(home, name)
        discard(home.events(name, 0).parent)
        for entry in paths.dir.iterdir():
            if entry not in (paths.lock, paths.studies):  # after a kill, they say that the sweep is this home's
                discard(entry)
        delete_sweep(home.studies_db, name)
    remove_unheld(paths.lock)
    return f"deleted sweep {name!r}: {counted(len(run_ids), 'run')}, {counted(len(versions), 'released version')}"


def _refuse_absent_files(home: Home, name: str) -> None:
    """Raises `UsageError` where a sweep was run in other homes alone: its files and runs would stay there."""
    if home.studies_db.file is None and not home.sweep(name).studies.exists():
        raise UsageError(f"sweep {name!r} was not run in {home.dir}: nothing was deleted; delete it in the home that "
                         "has its files, or --force deletes its study alone")  # fmt: skip


def _refuse_needed(
    home: Home, name: str, versions: Sequence[Version], run_ids: Sequence[str], names: Sequence[str]
) -> None:  # fmt: skip
    """Raises `UsageError` where a version has an alias or is served, a version that the sweep did not release has its
    files among the sweep's, or another sweep needs it."""
    if held := [f"version {v.version} of {v.name!r}" for v in with_alias(home, versions)]:
        raise UsageError(
            f"sweep {name!r} has released {listed(held)}, which has an alias (hpo releases): nothing was "
            "deleted; --force deletes the sweep with its releases"
        )
    if served := [f"version {v.version} of {v.name!r}" for v in versions if v.is_served]:
        raise UsageError(f"sweep {name!r} has released {listed(served)}, which is served: nothing was deleted; "
                         "end the server, or --force deletes the sweep with its releases")  # fmt: skip
    others = [v for v in versions_of(home) if v.run_id in run_ids and v.sweep != name] if run_ids else []
    if others:
        registered = listed(f"version {v.version} of {v.name!r}" for v in others)
        raise UsageError(f"sweep {name!r} has the files of {registered}, which was registered in MLflow: nothing was "
                         "deleted; --force deletes the sweep with these files")  # fmt: skip
    _refuse_heirs(home, name, run_ids, names)


def _refuse_heirs(home: Home, name: str, run_ids: Sequence[str], names: Sequence[str]) -> None:
    """Raises `UsageError` where another sweep has taken over trials, has started from an adapter, or cannot continue
    without the sweep."""
    views = [view_study(home.studies_db, other) for other in names if other != name]
    places = [home.sweep(name).dir.resolve(), *(run_folder(home, run_id).resolve() for run_id in run_ids)]
    needs = {
        "has trained trials that {} took over": [v.name for v in views if _has_taken_from(v, name)],
        "has the adapter that {} started from (model.adapter)": [v.name for v in views if _has_started_in(v, places)],
        "is the warm start of {}, which has not ended": [v.name for v in views if _is_to_start_from(v, name)],
    }
    for what, heirs in needs.items():
        if heirs:
            heir = what.format(listed(heirs))
            raise UsageError(f"sweep {name!r} {heir}: nothing was deleted; --force deletes it")


def _has_taken_from(view: StudySnapshot, name: str) -> bool:
    return any((record.reused_from or "").startswith(f"{name}/") for record in view.records)


def _has_started_in(view: StudySnapshot, places: Sequence[Path]) -> bool:
    return any(start.is_relative_to(place) for start in starting_points([view]) for place in places)


def _is_to_start_from(view: StudySnapshot, name: str) -> bool:
    """Whether it continues only where there is a sweep of that name: it takes over trials whenever it continues."""
    return not is_finished(view) and name in view.config.get("search_strategy", {}).get("warm_start", [])
