"""What the home's MLflow store has of a sweep, read for its copy on a tracking server: cheap to ask what has changed.

It reads the database beside the sweep that writes it, so each question is short: while one is read, nobody can write.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.entities import Metric

from hpo.paths import Home
from hpo.tracking.mlflow_places import COPY_TAG

PARENT = "mlflow.parentRunId"
VERSIONS = "mlflow.modelVersions"
"""Tag of a logged model: the registered versions that are the same model, as JSON."""
_AT_ONCE = 500
_RUNS = f"""
SELECT r.run_uuid, p.value FROM runs r
JOIN tags s ON s.run_uuid = r.run_uuid AND s.key = 'hpo.sweep' AND s.value = ?
LEFT JOIN tags p ON p.run_uuid = r.run_uuid AND p.key = '{PARENT}'
WHERE r.lifecycle_stage = 'active'
AND NOT EXISTS (SELECT 1 FROM tags c WHERE c.run_uuid = r.run_uuid AND c.key = '{COPY_TAG}')
ORDER BY p.value IS NOT NULL, r.start_time, r.run_uuid
"""  # noqa: S608  # names of our own
_FACTS = (
    "SELECT run_uuid, name, status, end_time FROM runs WHERE run_uuid IN ({})",
    "SELECT run_uuid, key, value FROM tags WHERE run_uuid IN ({}) ORDER BY run_uuid, key",
    "SELECT run_uuid, count(*), sum(length(value)) FROM params WHERE run_uuid IN ({}) GROUP BY run_uuid",
    "SELECT run_uuid, count(*) FROM metrics WHERE run_uuid IN ({}) GROUP BY run_uuid",
    "SELECT destination_id, count(*) FROM inputs WHERE destination_type = 'RUN' AND destination_id IN ({}) GROUP BY 1",
    "SELECT source_id, count(*) FROM inputs WHERE source_type IN ('RUN_INPUT', 'RUN_OUTPUT') AND source_id IN ({})"
    " GROUP BY 1",
    "SELECT source_run_id, model_id, status, last_updated_timestamp_ms FROM logged_models"
    " WHERE source_run_id IN ({}) ORDER BY model_id",
)
"""Everything that can change of a run, as rows that begin with its id."""


@dataclass(frozen=True)
class LocalRun:
    """A run of the home's store."""

    run_id: str
    version: str
    """Changes whenever anything changes that the store has of the run; its files are not part of it."""


@dataclass(frozen=True)
class LocalFile:
    """A file of a run or logged model."""

    file: Path
    path: str
    """Relative to the run's files, with /."""
    stamp: str
    """Changes whenever the file does."""

    @classmethod
    def at(cls, file: Path, folder: Path) -> LocalFile:
        """The file as it is now. Raises `FileNotFoundError` where it is gone."""
        stat = file.stat()
        return cls(file, file.relative_to(folder).as_posix(), f"{stat.st_size} {stat.st_mtime_ns}")


class RunSource:
    """The runs of one sweep in the home's store."""

    def __init__(self, home: Home, sweep: str, connection: sqlite3.Connection, client: MlflowClient) -> None:
        """`connection` is one to the database that `client` uses, and stays open as long as this."""
        self._home = home
        self.sweep = sweep
        self._connection = connection
        self.client = client
        self._seen: int | None = None

    def has_changed(self) -> bool:
        """Whether anybody has written to the database since the last call."""
        before, self._seen = self._seen, self._rows("PRAGMA data_version")[0][0]
        return before != self._seen

    def runs(self) -> list[LocalRun]:
        """All runs of the sweep that nobody has deleted, parents first, then in the order in which they began."""
        ids = [run_id for run_id, _ in self._rows(_RUNS, self.sweep)]
        return [run for start in range(0, len(ids), _AT_ONCE) for run in self._described(ids[start : start + _AT_ONCE])]

    def _described(self, ids: Sequence[str]) -> Iterator[LocalRun]:
        hashes = {run_id: hashlib.sha256() for run_id in ids}
        marks = ", ".join("?" * len(ids))
        for query in _FACTS:
            for run_id, *facts in self._rows(query.format(marks), *ids):
                hashes[run_id].update(repr(facts).encode("utf-8", "surrogatepass"))
        return (LocalRun(run_id, found.hexdigest()[:32]) for run_id, found in hashes.items())

    def metrics(self, run_id: str, after: int) -> tuple[list[Metric], int]:
        """The values that a run got after row `after` (0: all), in the order in which it got them; and the last row."""
        rows = self._rows(
            "SELECT rowid, key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ? AND rowid > ?"
            " ORDER BY rowid", run_id, after,
        )  # fmt: skip
        of_models = self._values_of_models(run_id)
        found = [
            Metric(key, float("nan") if is_nan else value, time, step, **of_models.get((key, time, step), {}))
            for _, key, value, time, step, is_nan in rows
        ]
        return found, rows[-1][0] if rows else after

    def _values_of_models(self, run_id: str) -> dict[tuple[str, int, int], dict[str, str]]:
        """Name, time and step of each value that also belongs to a logged model, and which model and data that is."""
        rows = self._rows(
            "SELECT metric_name, metric_timestamp_ms, metric_step, model_id, dataset_name, dataset_digest"
            " FROM logged_model_metrics WHERE run_id = ?", run_id,
        )  # fmt: skip
        return {
            (name, time, step): {"model_id": model, "dataset_name": data, "dataset_digest": digest}
            for name, time, step, model, data, digest in rows
        }

    def versions(self) -> dict[tuple[str, str], tuple[str, str]]:
        """Name and number of each registered version that is a logged model of the sweep -> its experiment and id."""
        rows = self._rows(
            "SELECT t.tag_value, CAST(m.experiment_id AS TEXT), m.model_id FROM logged_model_tags t"
            " JOIN logged_models m USING (model_id) JOIN tags s ON s.run_uuid = m.source_run_id"
            " WHERE t.tag_key = ? AND s.key = 'hpo.sweep' AND s.value = ?", VERSIONS, self.sweep,
        )  # fmt: skip
        named = [(json.loads(versions), experiment, model) for versions, experiment, model in rows]
        return {(v["name"], v["version"]): (experiment, model) for found, experiment, model in named for v in found}

    def models(self, run_id: str) -> list[str]:
        """The ids of the models that a run has logged."""
        rows = self._rows(
            "SELECT model_id FROM logged_models WHERE source_run_id = ? AND lifecycle_stage = 'active'"
            " ORDER BY creation_timestamp_ms, model_id", run_id,
        )  # fmt: skip
        return [model_id for (model_id,) in rows]

    def files(self, place: str) -> list[LocalFile]:
        """The files below an artifact URI of the home; links and what lies elsewhere are left out."""
        folder = Path(unquote(urlsplit(place).path))
        if not folder.resolve().is_relative_to(self._home.artifacts.resolve()):
            return []
        below = sorted(Path(within, name) for within, _, names in os.walk(folder) for name in names)
        found = []
        for file in below:
            if file.is_file() and not file.is_symlink() and file.resolve().is_relative_to(folder.resolve()):
                with suppress(FileNotFoundError):  # it may be deleted at any moment
                    found.append(LocalFile.at(file, folder))
        return found

    def _rows(self, query: str, *values: Any) -> list[Any]:
        return self._connection.execute(query, values).fetchall()
