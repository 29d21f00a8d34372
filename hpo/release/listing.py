"""All released versions with what they are, where they come from and what they were measured at."""

from __future__ import annotations

from datetime import UTC, datetime

from hpo.databases.sqlite import usable
from hpo.garbage import size_of
from hpo.paths import Home
from hpo.release.aliases import Aliases, aliases_of
from hpo.release.versions import Version, check_name, versions_of
from hpo.results.released import ListedVersion


def list_releases(home: Home, name: str | None) -> list[ListedVersion]:
    """Versions of one name, or of all; the newest of each name first. Raises `UsageError` for a name that is none."""
    if name is not None:
        check_name(home, name)
    elif not usable(home.mlflow_db):
        return []
    found = versions_of(home, name)
    aliases = {each: aliases_of(home, each) for each in {version.name for version in found}}
    return [_listed(version, aliases[version.name]) for version in found]


def _listed(version: Version, aliases: Aliases) -> ListedVersion:
    manifest = version.manifest()
    measured = manifest.measured
    trial = version.tags.get("trial", "")
    size_mb = size_of([version.folder()]) / 1e6 if version.has_files() else None
    return ListedVersion(
        name=version.name,
        version=version.version,
        alias=aliases.of(version.version),
        waits=version.waits,
        sweep=version.sweep,
        trial=int(trial) if trial.isdigit() else None,
        variant=version.tags.get("variant"),
        metric=measured.get("metric"),
        metrics=measured.get("metrics", {}),
        size_mb=size_mb,
        latency_p50_ms=measured.get("latency_p50_ms"),
        created=datetime.fromtimestamp(version.created_ms / 1000, UTC).isoformat(timespec="seconds"),
        about=version.about,
        is_served=version.is_served,
        served_by=version.served_by,
        run=manifest.run,
        other_aliases=sorted(alias for alias, held in aliases.given.items() if held == version.version),
    )
