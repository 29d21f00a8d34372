"""A training that is over, with all that is needed to train it again: its spec, data, result and environment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo.config.user_code import named_files
from hpo.errors import Problem
from hpo.executors.environment import Environment
from hpo.paths import Home
from hpo.quoting import listed
from hpo.results.records import Attempt
from hpo.trials.places_now import PlacesNow
from trainers.protocol.events import PreparedData, TrialResult
from trainers.protocol.files import TrialPaths, file_fingerprint, weights_hash
from trainers.protocol.settings import Setting
from trainers.protocol.trial_spec import TrialSpec

_SHOWN_DIGITS = 12
"""Of a hash, in messages."""


@dataclass(frozen=True)
class RecordedRun:
    """One trial, or one repeat of a finalist, as a sweep has recorded it."""

    name: str
    """As people name it: `SWEEP#7`."""
    spec: TrialSpec
    """As its last attempt had it."""
    result: TrialResult
    prepared: PreparedData
    config: Mapping[str, Any]
    """The sweep's file as plain values, in the revision that has the run."""
    paths: TrialPaths
    params: Mapping[str, Setting] = field(default_factory=dict)
    attempts: Sequence[Attempt] = ()
    """Those before the last one."""
    resumed_from: int | None = None
    """The step that the last attempt began from."""
    environment: Environment | None = None
    """None where an earlier hpo did not record it."""
    newest_config: Mapping[str, Any] = field(default_factory=dict)
    """The sweep's file as plain values, as it was read last: it says where model and data lie now."""
    notes: Sequence[str] = ()
    """What a reader should know of it."""

    @property
    def weights(self) -> str:
        """SHA-256 of what it had learned; empty where neither the record nor the adapter is there."""
        return self.result.adapter_sha256 or weights_hash(self.paths.adapter)

    def spec_here(self, home: Home, cache: Path, folder: Path) -> TrialSpec:
        """The spec with the places of today. What is prepared goes to `cache`, and what is trained to `folder`."""
        places = PlacesNow(Path(self.spec.workload.cache_dir), home.cache, self.newest_config)
        workload = dataclasses.replace(places.workload(self.spec.workload), cache_dir=str(cache))
        return dataclasses.replace(self.spec, workload=workload, dir=str(folder))

    def stages(self) -> list[tuple[int, int | None]]:
        """How often the micro-batch was halved, and up to which step (None: to the end), for each part of the training
        that counts: an attempt that ran out of memory goes on from a checkpoint with half the micro-batch."""
        begun = [(a.micro_batch_halvings, a.resumed_from or 0) for a in self.attempts]
        parts: list[tuple[int, int]] = []
        for halvings, start in [*begun, (self.spec.micro_batch_halvings, self.resumed_from or 0)]:
            parts = [part for part in parts if part[1] < start]
            if not parts or parts[-1][0] != halvings:
                parts.append((halvings, start))
        ends: list[int | None] = [start for _, start in parts[1:]]
        return [(halvings, end) for (halvings, _), end in zip(parts, [*ends, None], strict=True)]

    # --- whether the same can be trained today -----------------------------------------------------------

    def changed_inputs(self, now: PreparedData, spec: TrialSpec) -> list[Problem]:
        """What is not as it was in data, base model and your own code; `spec` has the places of today."""
        return [*self._changed_data(now, spec), *self._changed_model(now, spec), *self._changed_code(spec)]

    def _changed_data(self, now: PreparedData, spec: TrialSpec) -> list[Problem]:
        was = self.prepared
        if was.fingerprint == now.fingerprint:
            return self._changed_labels(now, spec)
        found = [
            Problem(
                f"data: {spec.workload.data.sources().get(split, spec.workload.data.train)}",
                f"the {split} rows are not those of {self.name}: {now.rows[split]:,} rows with the hash "
                f"{_short(hash_)}, then {was.rows[split]:,} rows with {_short(was.split_hashes[split])}",
                "bring back the data of then",
            )
            for split, hash_ in now.split_hashes.items()
            if was.split_hashes.get(split, hash_) != hash_
        ]
        counts = f"{_counts(now)}, then {_counts(was)}"
        whole = Problem(f"data: {spec.workload.data.train}", f"the rows are not those of {self.name}: {counts}",
                        "bring back the data of then")  # fmt: skip
        return found or [whole]

    def _changed_labels(self, now: PreparedData, spec: TrialSpec) -> list[Problem]:
        """Other names for the same labels: the hash of the rows has only their numbers."""
        was = self.prepared.labels
        if was == now.labels:
            return []
        new, old = listed(sorted(set(now.labels) - set(was))), listed(sorted(set(was) - set(now.labels)))
        found = f"its labels are not those of {self.name}: {new}, then {old}"
        return [Problem(f"data: {spec.workload.data.train}", found, "bring back the data of then")]

    def _changed_model(self, now: PreparedData, spec: TrialSpec) -> list[Problem]:
        was, model = self.prepared, spec.workload.model
        if was.model_fingerprint == now.model_fingerprint:
            return []
        changed = now.changed_model_files(was)
        what = f"other content in {listed(changed)}" if changed else "other files"
        if model.adapter is not None and was.model_hashes and not changed:
            what = f"another starting point in {model.adapter}"
        return [Problem(f"model: {model.source}", f"is not the base model of {self.name}: {what}",
                        "bring back the files of then")]  # fmt: skip

    def _changed_code(self, spec: TrialSpec) -> list[Problem]:
        problems = []
        for name, digest in zip(named_files(self.config), self.config.get("code", []), strict=False):
            path = Path(spec.workload.code_dir, name)
            if not path.is_file():
                problems.append(Problem(f"code: {path}", "is gone", f"{self.name} was trained with it"))
            elif not file_fingerprint([path]).startswith(digest):
                found = f"is not the code that {self.name} was trained with"
                problems.append(Problem(f"code: {path}", found, "bring back the file of then"))
        return problems


def _short(hash_: str) -> str:
    return hash_[:_SHOWN_DIGITS]


def _counts(prepared: PreparedData) -> str:
    rows = ", ".join(f"{count:,} {split}" for split, count in prepared.rows.items())
    return f"{rows} rows with the hash {_short(prepared.fingerprint)}"
