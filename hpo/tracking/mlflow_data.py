"""The data of a sweep as MLflow's data sets: one for each split, by what it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mlflow.entities import Dataset, DatasetInput, InputTag

from trainers.protocol.events import PreparedData
from trainers.protocol.trial_spec import DataRef

_DIGEST = 32
"""Characters; MLflow allows 36."""
_CONTEXTS = {"train": "training", "validation": "validation", "test": "testing"}
"""Split -> what MLflow's UI calls it."""


def dataset_inputs(data: DataRef, prepared: PreparedData) -> list[DatasetInput]:
    """A data set for each split, with the digest of its rows; the training split alone where an earlier hpo prepared
    the data, because the digests of the others are not known then."""
    digests = {split: digest for split, digest in prepared.split_hashes.items() if prepared.rows.get(split)}
    return [_input(data, prepared, *item) for item in (digests or {"train": prepared.fingerprint}).items()]


def _input(data: DataRef, prepared: PreparedData, split: str, digest: str) -> DatasetInput:
    source = data.sources().get(split, data.train)  # a split without a source of its own is cut from the training rows
    where = {"uri": source.source, "config": source.config, "revision": source.revision, "split": source.split}
    profile = {"rows": prepared.rows[split], "labels": prepared.label_counts.get(split)}
    if split == "train":
        profile["duplicates_dropped"] = prepared.duplicates
    dataset = Dataset(
        name=Path(source.source).name,
        digest=digest[:_DIGEST],
        source_type="hub" if source.is_hub else "local",
        source=json.dumps(_given(where)),
        profile=json.dumps(_given(profile)),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", _CONTEXTS[split])])


def _given(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None and value != {}}
