"""Releases with answers of a known quality, registered in a real store, and a trainer that measures them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hpo.paths import Home
from hpo.results.released import Release
from hpo.tracking.mlflow_store import client
from trainers.metrics.table import ROW_RESULTS
from trainers.protocol.events import Failed
from trainers.protocol.measured import Measurement
from trainers.protocol.requests import Measure
from trainers.runtime.card import Card

ROWS = 400
LABELS = ("a", "b")


def answers(quality: float, seed: int) -> np.ndarray:
    """Per-row results of a classifier that is right on a share of the rows; two seeds err on different ones."""
    truth = np.arange(ROWS) % 2
    is_right = np.random.default_rng(seed).permutation(ROWS) < quality * ROWS
    predicted = np.where(is_right, truth, 1 - truth)
    probability = np.where(np.stack([predicted == 0, predicted == 1], axis=1), 0.9, 0.1)
    return np.concatenate([np.stack([truth, predicted, np.full(ROWS, 0.5)], axis=1), probability], axis=1)


def measuring(request: Any) -> Iterator[Any]:
    """Answers `Measure` for a folder of `release_folder`."""
    assert isinstance(request, Measure)
    folder = Path(request.dir, request.variant)
    if not (folder / "answers.npy").exists():
        yield Failed("crash", "it has no label 'unheard of'")
        return
    rows = np.load(folder / "answers.npy")
    if request.rows_file:
        Path(request.rows_file).parent.mkdir(parents=True, exist_ok=True)
        np.save(request.rows_file, rows)
    metrics = ROW_RESULTS["text-classification"].metrics(rows, LABELS)
    yield Measurement(request.variant, metrics, 0.0, 1.0, 1.0, 1.0)


def release_folder(model: Path, quality: float, seed: int, **card: Any) -> Path:
    """What MLflow has of a registered model, as far as a comparison reads it."""
    folder = model / "artifacts" / "fp32"
    folder.mkdir(parents=True)
    fields = dataclasses.asdict(Card(**{"task": "text-classification", "variant": "fp32", "labels": LABELS,
                                        "max_length": 32, "pad_token_id": 0, **card}))  # fmt: skip
    (folder / "release.json").write_text(json.dumps(fields))
    measured = {"metric": "f1_macro", "metrics": {"f1_macro": quality}, "size_mb": 1.5, "latency_p50_ms": 2.0}
    (folder / "manifest.json").write_text(json.dumps({"sha256": {"base": "0" * 64}, "measured": measured}))
    np.save(folder / "answers.npy", answers(quality, seed))
    return folder


def registered(home: Home, sweep: str, quality: float, seed: int = 0, name: str = "shared", **card: Any) -> Release:
    """A version of `name` that a sweep released; its training is a run of its own in MLflow."""
    store = client(home)
    experiment = store.get_experiment_by_name("hpo")
    experiment_id = experiment.experiment_id if experiment else store.create_experiment("hpo", home.artifacts.as_uri())
    run = store.create_run(experiment_id, tags={"hpo.sweep": sweep, "hpo.kind": "trial", "hpo.trial": "0"})
    model = Path(run.info.artifact_uri.removeprefix("file://"), f"model-{run.info.run_id[:8]}")
    release_folder(model, quality, seed, **card)
    if not any(found.name == name for found in store.search_registered_models()):
        store.create_registered_model(name)
    version = store.create_model_version(
        name, source=model.as_uri(), run_id=run.info.run_id, tags={"sweep": sweep, "trial": "0", "variant": "fp32"},
        description="passed",
    )  # fmt: skip
    return Release(name, str(version.version), "", "fp32", 0, run.info.run_id)
