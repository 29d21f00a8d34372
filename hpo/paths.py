"""Where all data lives: the only place that joins paths below `HPO_HOME`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from hpo.databases.studies import StudiesDatabase
from hpo.errors import UsageError
from hpo.given_path import given_path
from hpo.quoting import clipped
from trainers.protocol.files import TrialPaths

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def held_of_prepared(folder: Path) -> Path:
    """The file of a folder of prepared data that is held (see `hpo.lock`) by whoever uses the folder."""
    return folder / "validation.jsonl"


@dataclass(frozen=True)
class SweepPaths:
    """The files of one sweep."""

    dir: Path

    @property
    def lock(self) -> Path:
        """Held by the process that runs the sweep; see `hpo.lock`."""
        return self.dir / "lock"

    @property
    def studies(self) -> Path:
        """The address of the server that has the sweep's study; not there for one in the home."""
        return self.dir / "studies"

    @property
    def host_log(self) -> Path:
        """What the trial host and its children print."""
        return self.dir / "host.log"

    @property
    def timeline(self) -> Path:
        """When each worker trained what: a line of JSON for each attempt."""
        return self.dir / "timeline.jsonl"

    @property
    def store(self) -> Path:
        """MLflow's database while it is created, in a folder of its own."""
        return self.dir / "mlflow.new"

    @property
    def remote_ledger(self) -> Path:
        """What a tracking server has of the sweep, in SQLite; see `hpo.tracking.remote.ledger`."""
        return self.dir / "remote.db"

    @property
    def remote_lock(self) -> Path:
        """Held by the process that copies the sweep's runs to a tracking server."""
        return self.dir / "remote.lock"

    @property
    def remote_log(self) -> Path:
        """What that process prints when it runs beside the sweep."""
        return self.dir / "remote.log"

    @property
    def release(self) -> Path:
        """ONNX variants of the champion, one folder each."""
        return self.dir / "release"

    @property
    def champion(self) -> Path:
        """The champion's error analysis, for people to read."""
        return self.dir / "champion"

    def champion_files(self) -> dict[str, str]:
        """Name -> path of each file of that analysis; empty before there is one."""
        return {file.name: str(file) for file in sorted(self.champion.glob("*"))}

    def repeat(self, trial: int, index: int) -> TrialPaths:
        """The files of one repeat of a finalist; `index` counts its fresh seeds from 0."""
        return TrialPaths(self.dir / "finalists" / f"{trial:04d}-seed-{index}")

    def repeats(self, trial: int) -> list[TrialPaths]:
        """The files of all repeats that a finalist has."""
        return [TrialPaths(folder) for folder in sorted((self.dir / "finalists").glob(f"{trial:04d}-seed-*"))]

    def trial(self, number: int) -> TrialPaths:
        """The files of one trial of the search."""
        return TrialPaths(self.dir / "trials" / f"{number:04d}")


@dataclass(frozen=True)
class Home:
    """The data folder with MLflow's store, the studies, the cache and the trial folders."""

    dir: Path

    @classmethod
    def locate(cls, given: Path | str | None = None) -> Home:
        """The home at `given` (`--home`), or at `HPO_HOME`, or at `mlruns` in the current folder; it need not exist.

        Raises `UsageError` for a path that no folder can have, or that a database's URI cannot contain.
        """
        text = os.environ.get("HPO_HOME") or "mlruns" if given is None else str(given)
        try:
            path = given_path(text, Path())
        except ValueError as error:
            raise UsageError(f"home {clipped(text)}: {error}; expected the path of a folder") from error
        if set(str(path)) & set("?#%"):
            raise UsageError(f"home {path}: expected a path without ?, # and %")
        there = next(place for place in (path, *path.parents) if place.exists())
        if not there.is_dir():
            raise UsageError(f"home {path}: {there} is a file; expected a folder")
        return cls(path)

    @property
    def mlflow_db(self) -> Path:
        """MLflow's runs and registered models, in SQLite."""
        return self.dir / "mlflow.db"

    @property
    def mlflow_lock(self) -> Path:
        """Held while MLflow's database is created or moved."""
        return self.dir / "mlflow.lock"

    @property
    def registry_lock(self) -> Path:
        """Held while aliases of a registered model are read and moved."""
        return self.dir / "registry.lock"

    @property
    def bundle_lock(self) -> Path:
        """Held while a bundle is registered, which no sweep's lock shows."""
        return self.dir / "bundle.lock"

    @property
    def artifacts(self) -> Path:
        """The files of MLflow's runs and models."""
        return self.dir / "artifacts"

    def events(self, sweep: str, trial: int, repeat: int | None = None) -> Path:
        """The folder of TensorBoard's event files for one trial, or for one repeat of a finalist."""
        return self.dir / "tensorboard" / sweep / (f"trial-{trial:04d}" + ("" if repeat is None else f"-seed-{repeat}"))

    @property
    def studies_db(self) -> StudiesDatabase:
        """Optuna's studies, the record of every trial: in the home, or where `HPO_STUDIES` says.

        Raises `UsageError` where that is no address of a database.
        """
        return StudiesDatabase.chosen(self.dir / "studies.db", os.environ)

    @property
    def cache(self) -> Path:
        """Fetched demo models and data, and prepared data: all of it can be made again."""
        return self.dir / "cache"

    @property
    def tokens(self) -> Path:
        """Prepared data in the cache, a folder for each way in which rows were cut and tokenized."""
        return self.cache / "tokens"

    def promotion_time(self, base: str, target: str) -> Path:
        """How long the last release of a base took, which is known by its fingerprint."""
        return self.cache / "promotions" / f"{base[:32]}-{target}.json"

    def comparison(self, form: str) -> Path:
        """The report of several sweeps; `form` is the ending of its name."""
        return self.dir / f"comparison.{form}"

    @property
    def sweeps(self) -> Path:
        """The folders of all sweeps."""
        return self.dir / "sweeps"

    def nights(self, name: str) -> Path:
        """The folder of the nights of one sweep's file; see `hpo.nights`. Raises `UsageError` as `sweep` does."""
        return self.dir / "nights" / self.sweep(name).dir.name

    def ledger(self, model: str) -> Path:
        """Every claim that nights made for a released model's name. Raises `UsageError` as `sweep` does."""
        return self.dir / "ledgers" / f"{self.sweep(model).dir.name}.jsonl"

    @property
    def schedule_log(self) -> Path:
        """What scheduled nights print."""
        return self.dir / "schedule.log"

    @property
    def schedule_lock(self) -> Path:
        """Held while the user's crontab is read and replaced."""
        return self.dir / "schedule.lock"

    def sweep(self, name: str) -> SweepPaths:
        """The files of one sweep. Raises `UsageError` for a name that could leave the folder."""
        if not NAME_PATTERN.fullmatch(name):
            raise UsageError(f"{name!r} is not a sweep name: expected letters, digits, '.', '_' and '-'")
        return SweepPaths(self.sweeps / name)
