"""Registered versions deleted with their files: the record first, so that no version lacks its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlparse

from hpo.errors import UsageError
from hpo.garbage import discard
from hpo.paths import NAME_PATTERN, Home
from hpo.quoting import listed
from hpo.release.aliases import CHALLENGER, aliases_of, seats
from hpo.release.versions import Version, check_name, versions_of
from hpo.tracking.mlflow_deletion import bundle_runs, delete_for_good
from hpo.tracking.mlflow_places import forget_models
from hpo.tracking.mlflow_store import client


def chosen_versions(home: Home, name: str, version: str | None) -> list[Version]:
    """All versions of a name, or the one that was named. Raises `UsageError` for one that does not exist."""
    check_name(home, name)
    found = versions_of(home, name)
    if version is None:
        return found
    chosen = [v for v in found if v.version == version]
    if not chosen:
        known = f"there are: {listed([v.version for v in found])}" if found else "there are none"
        raise UsageError(f"no version {version!r} of {name!r}; {known}")
    return chosen


def in_use(home: Home, versions: Sequence[Version]) -> list[str]:
    """Which of them are champion or previous champion, have an alias that a person gave, or are loaded by a running
    server, in words."""
    found = []
    for version in versions:
        held = [alias for alias in aliases_of(home, version.name).all_of(version.version) if alias != CHALLENGER]
        if held:
            found.append(f"version {version.version} of {version.name!r} is {listed(held)}")
        elif version.is_served:
            found.append(f"version {version.version} of {version.name!r} is served")
    return found


def with_alias(home: Home, versions: Sequence[Version]) -> list[Version]:
    """Those of them that have an alias, ours or one that a person gave."""
    return [v for v in versions if aliases_of(home, v.name).all_of(v.version)]


def delete_versions(home: Home, versions: Sequence[Version], name: str | None = None) -> None:
    """Delete versions and their files; of these and `name`, a name without versions goes too, with a bundle's runs."""
    store = client(home)
    for version in versions:
        with seats(home, version.name) as held:
            held.forget(version.version)
            store.delete_model_version(version.name, version.version)
        if (folder := files_of(home, version)) and folder not in registered_folders(home):
            discard(folder)
            forget_models(home, source=version.source)
    left = versions_of(home)
    needed = {version.run_id for version in left}  # a copy that was made in MLflow has the run of its original
    names = {version.name for version in versions} | ({name} if name else set())
    for empty in names - {version.name for version in left}:
        if NAME_PATTERN.fullmatch(empty):  # as a bundle's is
            delete_for_good(home, [run for run in bundle_runs(home, empty) if run not in needed])
        store.delete_registered_model(empty)


def registered_folders(home: Home) -> set[Path]:
    """The folders that some version needs."""
    return {folder for version in versions_of(home) if (folder := files_of(home, version))}


def files_of(home: Home, version: Version) -> Path | None:
    """The folder of a version's files; None where they lie outside the home: those are not ours to delete."""
    place = urlparse(version.source)
    if place.scheme not in ("", "file"):
        return None
    folder = Path(unquote(place.path)).resolve()
    return folder if home.artifacts.resolve() in folder.parents else None
