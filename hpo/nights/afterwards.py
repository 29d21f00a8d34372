"""What became of releases that waited for a person when their night ended: MLflow's registry knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal

from hpo.databases.sqlite import usable
from hpo.nights.record import NightRecord
from hpo.paths import Home

if TYPE_CHECKING:
    from hpo.release.aliases import Aliases
    from hpo.release.versions import Version

Afterwards = Literal["waits", "approved", "replaced", "deleted"]
"""`approved`: it became champion, by `hpo approve` or in MLflow. `replaced`: a later version waits in its place."""


def afterwards(home: Home, records: Sequence[NightRecord]) -> Mapping[str, Afterwards]:
    """Date of a night -> what became of its release, of those nights that left one to a person.

    Raises `HpoError` where the registry cannot be opened.
    """
    waited = {record.date: facts for record in records if (facts := record.facts("promote")).get("seat") == "waits"}
    if not waited or not usable(home.mlflow_db):
        return {}
    from hpo.release.aliases import aliases_of  # late, for MLflow
    from hpo.release.versions import versions_of

    @cache
    def registered(model: str) -> tuple[dict[str, Version], Aliases]:
        return {version.version: version for version in versions_of(home, model)}, aliases_of(home, model)

    found: dict[str, Afterwards] = {}
    for date, facts in waited.items():
        versions, now = registered(str(facts.get("model")))
        found[date] = _became(versions.get(str(facts.get("version"))), now)
    return found


def _became(version: Version | None, now: Aliases) -> Afterwards:
    if version is None:
        return "deleted"
    if version.version == now.challenger:
        return "waits"
    is_or_was_champion = now.of(version.version) is not None or not version.waits  # `hpo approve` takes the tag away
    return "approved" if is_or_was_champion else "replaced"
