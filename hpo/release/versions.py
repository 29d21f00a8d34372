"""Registered versions as MLflow has them: who made them, where their files lie, and what they were measured at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from hpo.databases.sqlite import usable
from hpo.errors import HpoError, UsageError
from hpo.lock import is_in_use, users_of
from hpo.paths import Home
from hpo.quoting import listed, quoted
from hpo.release.aliases import ABSENT, CHAMPION, WAITS
from hpo.release.manifest import Manifest
from hpo.tracking.mlflow_store import client

ADAPTERS = "adapters"
"""Tag of one base with adapters: how many it has."""
_PAGE = 1000


@dataclass(frozen=True)
class Version:
    """One registered version of a model."""

    name: str
    version: str
    sweep: str | None
    """None for a version that no sweep released."""
    source: str
    """URI of the folder in which MLflow keeps its files."""
    run_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    created_ms: int = 0
    """Since 1970."""
    about: str = ""
    """Its description in MLflow's UI."""

    @classmethod
    def of(cls, store: MlflowClient, found: ModelVersion) -> Self:
        """As MLflow's entity has it. The source of a copy that was made in MLflow is that of its original."""
        tags, source = dict(found.tags), str(found.source)
        if source.startswith("models:"):
            source = str(store.get_model_version_download_uri(found.name, found.version))
        return cls(
            found.name, str(found.version), tags.get("sweep"), source, found.run_id, tags,
            int(found.creation_timestamp or 0), found.description or "",
        )  # fmt: skip

    def __str__(self) -> str:
        return f"version {self.version}" + (f" of sweep {self.sweep!r}" if self.sweep else ", which no sweep released")

    @property
    def waits(self) -> bool:
        """Whether it waits for a person."""
        return WAITS in self.tags

    @property
    def is_bundle(self) -> bool:
        """Whether it is one base with adapters of several sweeps; a sweep's own adapters are that sweep's release."""
        return ADAPTERS in self.tags and self.sweep is None

    def folder(self) -> Path:
        """The folder of its release. Raises `HpoError` where its files are gone."""
        try:
            local = mlflow.artifacts.download_artifacts(self.source)
            return next(path for path in Path(local, "artifacts").iterdir() if path.is_dir())
        except (OSError, MlflowException, StopIteration) as error:
            way = "run its sweep again to release it again"
            raise HpoError(f"the files of {self.name!r} version {self.version} are gone: {error}; {way}") from error

    @property
    def is_served(self) -> bool:
        """Whether a running server has it loaded."""
        return self.has_files() and is_in_use(self.folder() / "release.json")

    @property
    def served_by(self) -> list[int]:
        """Ids of the processes that have it loaded, as far as the kernel tells."""
        return users_of(self.folder() / "release.json") if self.has_files() else []

    def has_files(self) -> bool:
        """Whether its files are there."""
        try:
            self.folder()
        except HpoError:
            return False
        return True

    def manifest(self) -> Manifest:
        """What the release says about itself; empty where it is damaged or gone."""
        try:
            return Manifest.read(self.folder())
        except (OSError, ValueError, HpoError):
            return Manifest()


def version_of(home: Home, name: str, version: str) -> Version | None:
    """One version of a name; None where there is none."""
    return _found(home, lambda store: store.get_model_version(name, version))


def holder_of(home: Home, name: str, alias: str) -> Version | None:
    """The version of `name` with an alias; None where no version has it."""
    return _found(home, lambda store: store.get_model_version_by_alias(name, alias))


def champion_of(home: Home, name: str) -> Version | None:
    """The version of `name` with the alias `champion`; None where no version has it."""
    return holder_of(home, name, CHAMPION)


def _found(home: Home, ask: Callable[[MlflowClient], ModelVersion]) -> Version | None:
    store = client(home)
    try:
        return Version.of(store, ask(store))
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        return None


def versions_of(home: Home, name: str | None = None) -> list[Version]:
    """All versions of a name, or of all names, by name and the newest first."""
    store, found, token = client(home), [], None
    if name is not None and not name.isprintable():  # lone surrogates, which no database accepts
        return []
    query = None if name is None else "name = '{}'".format(name.replace("'", "''"))
    while True:
        page = store.search_model_versions(query, max_results=_PAGE, page_token=token)
        found += [Version.of(store, version) for version in page]
        token = page.token
        if not token:
            break
    return sorted(found, key=lambda v: (v.name, -int(v.version)))


def check_name(home: Home, name: str) -> None:
    """Raises `UsageError` for a name that is not registered, with the names that are."""
    if not usable(home.mlflow_db):
        why = f"there is no database at {home.mlflow_db}; run a sweep first, or name its home with --home"
        raise UsageError(f"no released model {quoted(name)}: {why}")
    if not name.isprintable():
        raise UsageError(f"no released model {quoted(name)}: a name has printable characters only")
    names = [model.name for model in client(home).search_registered_models()]
    if name not in names:
        known = f"there are: {listed(names)}" if names else "there are none yet"
        raise UsageError(f"no released model {quoted(name)}; {known}")
